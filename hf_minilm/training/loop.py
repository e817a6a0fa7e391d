"""The training loop: one step after the other, each a pure function of the weights, the seed and the step's number."""

import contextlib
import itertools
import math
import platform
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from tqdm import tqdm
from transformers import PreTrainedModel

from ..data.objectives import Objective
from ..data.order import RowKey, RowOrder, share
from .batches_ahead import BatchesAhead, resolve_batch_processes, usable_cores
from .checkpoint import TrainingState
from .gradient import Losses, Part, add_up_gradient, count_labels, own_parts, sent
from .metrics import MetricsLog
from .optimizer import set_learning_rate
from .prepared_batch import prepared
from .processes import Processes
from .progress_bar import ProgressBar, progress_bar
from .recipe import Recipe
from .schedule import Budget, finished, learning_rate_factor, progress
from .sharding import WholeModel
from .stop_signals import stop_signals


class NonFiniteError(FloatingPointError):
    """Too many losses or gradients in a row were NaN or infinite; the weights are those before them."""


class Stopped(Exception):  # noqa: N818 (not an error: the run was asked to stop, and is saved)
    """A signal asked the run to stop, and a checkpoint holds all of it.

    Attributes:
        signal_number: Which signal, so that the exit code can say so.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped by signal {signal_number} after step {step}, saved; the same command goes on.")
        self.signal_number = signal_number


@dataclass
class Training:
    """Everything the loop needs, prepared.

    Attributes:
        recipe: The settings.
        accelerator: The devices.
        processes: The processes.
        model: Wrapped by `accelerator.prepare`.
        optimizer: Likewise.
        objective: Rows into batches.
        metrics: Where the main process logs; None in the others.
        describe_rows: Says for a person how the texts of some rows begin.
        evaluate: Measures the model on held-out text, on all processes together; `held_out_loss` in nats.
        save: Writes a checkpoint of a state on the main process; called on all.
        settle: Waits on all processes until what was saved is on the disk.
        whole: The plain model beside a sharded one; None: each process has a whole model.
    """

    recipe: Recipe
    accelerator: Accelerator
    processes: Processes
    model: torch.nn.Module
    optimizer: Any
    objective: Objective
    metrics: MetricsLog | None
    describe_rows: Callable[[list[RowKey]], str]
    evaluate: Callable[[], dict[str, float]]
    save: Callable[[TrainingState], None]
    settle: Callable[[], None]
    whole: WholeModel | None = None

    @property
    def bare_model(self) -> PreTrainedModel:
        """The model without what Accelerate put around it; of a sharded one, the plain model, to be gathered first."""
        return self.accelerator.unwrap_model(self.model) if self.whole is None else self.whole.model

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """Hold all weights in `bare_model`. All processes enter it."""
        return contextlib.nullcontext() if self.whole is None else self.whole.gathered(self.model)


def train(training: Training, state: TrainingState) -> TrainingState:
    """Train until the budget is used.

    Args:
        training: What to train.
        state: Where the run stands.

    Returns:
        Where it stands at the end; the last step is evaluated and saved.

    Raises:
        NonFiniteError: If the losses or gradients of too many steps in a row are NaN or infinite.
        ProcessLostError: If another process does not answer.
        Stopped: If SIGTERM, SIGINT or SIGUSR1 asked for it, on any process.
    """
    settings = training.recipe.training
    behind = state.step, state.tokens // training.objective.positions_per_row
    order = RowOrder(training.objective.rows_in_epoch, settings.batch_rows, seed=settings.seed, behind=behind)
    evaluations, saves = Interval(training.recipe.evaluation.every, state), Interval(settings.save_every, state)
    clock = time.monotonic() - state.seconds
    training.model.train()
    with (
        stop_signals() as received,
        progress_bar(settings.budget, state, is_shown=training.accelerator.is_main_process) as bar,
        batches_ahead(training, order, state.step) as batches,
    ):
        first_step, device = state.step, training.accelerator.device
        parts, unread = sent(batches.next(), device), None
        while True:
            agreed = agree(training.processes, parts, seconds=time.monotonic() - clock, signal_number=received.number)
            state = with_time(state, agreed.seconds)
            done = finished(settings.budget, state.step, tokens=state.tokens, seconds=state.seconds)
            due = what_is_due(state, evaluations, saves, agreed=agreed, done=done)
            if state.step and any(due):
                state, unread = settled(training, state, unread, order=order, bar=bar), None
                state = evaluate_and_save(training, state, due)
            if done:
                return state
            if agreed.signal_number:
                training.settle()
                raise Stopped(agreed.signal_number, state.step)
            rate = set_rate(training, state)
            losses = compute_gradient(training, parts, agreed, step=state.step)
            parts = sent(next_parts(batches, device, bar), device)
            state = settled(training, state, unread, order=order, bar=bar)
            unread = move_weights(training, losses, rate=rate)
            state = replace(state, step=state.step + 1, tokens=state.tokens + positions_of_a_step(training))
            bar.advance(state)
            if state.step == first_step + 1:
                training.processes.limit_silence(settings.timeout)
            if unread.broken is not None:
                state, unread = settled(training, state, unread, order=order, bar=bar), None


@dataclass
class Move:
    """A step that was made, and what there is to know of it.

    Attributes:
        rate: The learning rate.
        names: Those of the losses.
        numbers: The gradient's norm before clipping, then the losses of each part of this process, by name: on the
            host, to where a GPU may still have to write them.
        written: When it has; None: they are there.
        broken: The processes whose losses are not finite, all of them where only the gradient is not; where there are
            such, the weights are as they were. None: nobody has read the numbers; the GPU moves the weights or not.
    """

    rate: float
    names: list[str]
    numbers: torch.Tensor
    written: torch.cuda.Event | None
    broken: list[int] | None = None

    def read(self) -> tuple[float, list[list[float]]]:
        """Wait for the numbers, and give the norm, and the losses of each part."""
        if self.written is not None:
            self.written.synchronize()
        return self.numbers[0].item(), self.numbers[1:].view(-1, len(self.names)).tolist()


@dataclass
class Agreed:
    """What all processes know of a step after one small exchange."""

    predicted: float
    sequences: float
    seconds: float
    signal_number: int


def agree(processes: Processes, parts: list[Part], *, seconds: float, signal_number: int) -> Agreed:
    """Add up the counts of all processes, and take the main one's clock and any one's stop signal."""
    everyones = processes.gather([*count_labels(parts), seconds, signal_number])
    predicted, sequences = everyones[:, 0].sum(), everyones[:, 1].sum()
    return Agreed(float(predicted), float(sequences), float(everyones[0, 2]), int(everyones[:, 3].max()))


def with_time(state: TrainingState, seconds: float) -> TrainingState:
    """Set the clock of a state; what it shows after the first step is that step's."""
    return replace(state, seconds=seconds, opening_seconds=seconds if state.step == 1 else state.opening_seconds)


def batches_ahead(training: Training, order: RowOrder, first_step: int) -> BatchesAhead:
    """Begin to make this process's parts of the steps from one on."""
    settings, cores = training.recipe.training, usable_cores()
    machine = zlib.crc32(platform.node().encode())
    sharing = training.processes.count_like([machine, len(cores), sum(cores), sum(core**2 for core in cores)])
    processes = resolve_batch_processes(settings.batch_processes, training.accelerator.device, num_sharing=sharing)

    as_taken = partial(prepared, training.bare_model) if training.accelerator.device.type == "cuda" else dict

    def make(step: int) -> list[Part]:
        rows = order.rows(step)
        return own_parts(training.objective, settings, training.processes, rows=rows, step=step, as_taken=as_taken)

    return BatchesAhead(make, first_step=first_step, processes=processes)


def next_parts(batches: BatchesAhead, device: torch.device, bar: ProgressBar) -> list[Part]:
    """Take the parts of the next step while a GPU is still computing, and note how long it was not."""
    begin = time.monotonic()
    parts = batches.next()
    if is_idle(device):
        bar.waited += time.monotonic() - begin
    return parts


def is_idle(device: torch.device) -> bool:
    """Tell whether a device has done all that it was given; a CPU always has."""
    return device.type != "cuda" or torch.cuda.current_stream(device).query()


def positions_of_a_step(training: Training) -> int:
    """Count the positions of a step's rows over all processes, which a budget in tokens counts."""
    return training.recipe.training.batch_rows * training.objective.positions_per_row


def set_rate(training: Training, state: TrainingState) -> float:
    """Set the learning rate of the step about to be made; a function of the global step, not of the processes."""
    settings = training.recipe.optimizer
    budget, tokens_of_step = training.recipe.training.budget, positions_of_a_step(training)
    done = progress(
        budget,
        state.step + 0.5,
        tokens=state.tokens + 0.5 * tokens_of_step,
        seconds=state.seconds,
        opening_seconds=state.opening_seconds,
    )
    factor = learning_rate_factor(
        settings.schedule,
        done,
        warmup_share=settings.warmup_share,
        decay_share=settings.decay_share,
        final_share=settings.final_share,
    )
    set_learning_rate(training.optimizer, settings.peak * factor)
    return settings.peak * factor


def compute_gradient(training: Training, parts: list[Part], agreed: Agreed, *, step: int) -> list[Losses]:
    """Add up the gradient of a step over its parts and processes; see `add_up_gradient`."""
    return add_up_gradient(
        training.model,
        parts,
        accelerator=training.accelerator,
        processes=training.processes,
        settings=training.recipe.training,
        step=step,
        arguments=loss_arguments(training, parts, agreed),
    )


def loss_arguments(training: Training, parts: list[Part], agreed: Agreed) -> dict[str, float]:
    """Say by how much the model divides its summed losses, and how far it smooths the labels."""
    arguments: dict[str, float] = {"num_items_in_batch": agreed.predicted}
    smoothing = training.recipe.objective.label_smoothing
    if smoothing:
        arguments["label_smoothing"] = smoothing
    if parts[0].sequences is not None:
        arguments["num_sequences_in_batch"] = agreed.sequences
    return arguments


def move_weights(training: Training, losses: list[Losses], *, rate: float) -> Move:
    """Clip the gradient, move the weights once, and clear it; where something is not finite, only clear it."""
    longest = training.recipe.optimizer.gradient_clip or float("inf")
    norm = training.accelerator.clip_grad_norm_(training.model.parameters(), longest)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    names = sorted(losses[0])
    numbers = torch.stack([norm, *(part[name] for part in losses for name in names)])
    is_on_gpu = numbers.device.type == "cuda"
    move = Move(
        rate,
        names,
        numbers.to("cpu", non_blocking=True),
        torch.cuda.current_stream(numbers.device).record_event() if is_on_gpu else None,
    )
    # GPUs that decide by themselves are given the next step before the host has read the numbers of this one.
    if skips_by_itself(training):
        found_inf = numbers.isfinite().logical_not().any().float()
        if training.processes.number > 1:
            torch.distributed.all_reduce(found_inf, torch.distributed.ReduceOp.MAX)
        training.optimizer.optimizer.found_inf = found_inf
    else:
        move.broken = broken_processes(training, move)
    if not move.broken:
        training.optimizer.step()
    training.optimizer.zero_grad()
    return move


def broken_processes(training: Training, move: Move) -> list[int]:
    """Wait for the numbers of a step, and say on all processes whose are not finite."""
    if training.accelerator.device.type == "cuda":
        # Whoever waits for the GPU alone cannot say which process does not come.
        training.processes.gather([0.0])
    norm, losses = move.read()
    # Of the gradient too: all processes have the same one, unless a memory or a network failed.
    are_finite = all(map(math.isfinite, itertools.chain(*losses)))
    finite = training.processes.gather([are_finite, math.isfinite(norm)]).bool()
    losses_are, gradients_are = finite.unbind(dim=1)
    broken = losses_are.logical_not().nonzero().flatten().tolist()
    if not broken and not gradients_are.all():
        broken = list(range(training.processes.number))
    return broken


def skips_by_itself(training: Training) -> bool:
    """Tell whether the optimizer leaves a step out by itself: on a GPU, unless the model is shared out."""
    is_whole_on_gpu = training.whole is None and training.accelerator.device.type == "cuda"
    return is_whole_on_gpu and bool(training.optimizer.optimizer.defaults["fused"])


def settled(
    training: Training, state: TrainingState, move: Move | None, *, order: RowOrder, bar: ProgressBar
) -> TrainingState:
    """Read the numbers of the last step, if there is one that was not read, and count and report it.

    Raises:
        NonFiniteError: As `leave_out` does.
    """
    if move is None:
        return state
    broken = broken_processes(training, move) if move.broken is None else move.broken
    if broken:
        return leave_out(training, state, rows=order.rows(state.step - 1), broken=broken)
    if state.step % training.recipe.training.log_every == 0:
        report_step(training, state, move, bar=bar)
    return replace(state, skipped_in_a_row=0)


def leave_out(training: Training, state: TrainingState, *, rows: list[RowKey], broken: list[int]) -> TrainingState:
    """Count and report a step that did not move the weights.

    Args:
        training: What is trained.
        state: Where the run stands after the step.
        rows: The step's.
        broken: Processes whose losses or gradient were not finite.

    Raises:
        NonFiniteError: If more steps in a row than the recipe allows were left out.
    """
    num_processes, most = training.processes.number, training.recipe.training.most_skipped
    suspects = [row for process in broken for row in share(rows, process, num_processes=num_processes)]
    state = replace(state, skipped=state.skipped + 1, skipped_in_a_row=state.skipped_in_a_row + 1)
    where = f"step {state.step - 1}, whose rows begin with {training.describe_rows(suspects)}"
    if state.skipped_in_a_row > most:
        raise NonFiniteError(
            f"losses and gradients must be finite, and those of {state.skipped_in_a_row} steps in a row are not, the "
            f"last of them {where} (training.most_skipped: {most}); go on from the last checkpoint with "
            "--accept-changes and a lower optimizer.learning_rate, a longer optimizer.warmup_share, or "
            "training.precision=fp32."
        )
    if training.metrics is not None:
        training.metrics.write({"step": state.step, "tokens": state.tokens, "skipped_steps": state.skipped})
        tqdm.write(f"left out: {where}: a loss or gradient is not finite; {state.skipped} so far", file=sys.stderr)
    return state


def report_step(training: Training, state: TrainingState, move: Move, *, bar: ProgressBar) -> None:
    """Log a step's losses, added up over all parts of all processes in their order."""
    norm, losses = move.read()
    summed = torch.cat(training.processes.gather_rows(torch.tensor(losses, dtype=torch.float64))).sum(0).tolist()
    parts = dict(zip(move.names, summed, strict=True))
    bar.show(parts, skipped=state.skipped)
    if training.metrics is None:
        return
    line = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3)}
    speed = {"tokens_per_second": bar.speed, "waiting_share": bar.waiting_share}
    figures = {**_loss_names(parts), "learning_rate": move.rate, "gradient_norm": norm}
    training.metrics.write({**line, **figures, **speed})
    training.accelerator.log(figures, step=state.step)


def _loss_names(parts: dict[str, float]) -> dict[str, float]:
    """`loss` is always that of the predicted tokens, so that curves of all objectives compare."""
    if "masked" not in parts:
        return {"loss": parts["loss"]}
    named = {"loss": parts["masked"], "total_loss": parts["loss"]}
    return named | ({"next_sentence_loss": parts["next_sentence"]} if "next_sentence" in parts else {})


class Due(NamedTuple):
    """What is to be done after a step.

    What is saved is measured too, so that the best is known, unless a signal hurries.
    """

    evaluating: bool
    saving: bool


def what_is_due(state: TrainingState, evaluations: "Interval", saves: "Interval", *, agreed: Agreed, done: bool) -> Due:
    """Say what is due where a run stands."""
    saving = saves.due(state) or done
    evaluating = evaluations.due(state) or done or (saving and evaluations.every is not None)
    return Due(evaluating, saving or bool(agreed.signal_number))


def evaluate_and_save(training: Training, state: TrainingState, due: Due) -> TrainingState:
    """Do what is due, and give the state with the best checkpoint so far."""
    with training.gathered():
        if due.evaluating:
            held_out_loss = report_held_out(training, state)
            if due.saving:
                state = with_best(state, held_out_loss)
        if due.saving:
            training.save(state)
    return state


def logged_held_out_loss(training: Training, state: TrainingState) -> float:
    """Look up the held-out loss of the last step on the main process; NaN if it was not measured."""
    lines = training.metrics.lines if training.metrics is not None else []
    found = [line["held_out_loss"] for line in lines if line["step"] == state.step and "held_out_loss" in line]
    return found[-1] if found else math.nan


def report_held_out(training: Training, state: TrainingState) -> float:
    """Measure the held-out loss on all processes together, and log it; one that is logged is not measured again."""
    known = float(training.processes.gather([logged_held_out_loss(training, state)])[0, 0])
    if not math.isnan(known):
        return known
    figures = training.evaluate()
    if training.metrics is not None:
        line = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3)}
        training.metrics.write({**line, **figures})
        training.accelerator.log(figures, step=state.step)
    return figures["held_out_loss"]


def with_best(state: TrainingState, held_out_loss: float) -> TrainingState:
    """Note in a state that is about to be saved whether its held-out loss is the lowest of all that were saved."""
    if not held_out_loss < state.losses.get("best_held_out_loss", float("inf")):  # nor NaN, which is less than nothing
        return state
    return replace(state, losses={**state.losses, "best_held_out_loss": held_out_loss, "best_step": state.step})


class Interval:
    """Says when the next of a series is due, counted in steps, tokens or seconds; the first after one interval."""

    def __init__(self, every: Any, state: TrainingState) -> None:
        self.every: Budget | None = every if isinstance(every, Budget) else None
        self.passed = self._count(state)

    def due(self, state: TrainingState) -> bool:
        """Tell whether an interval has ended since it was last due."""
        count = self._count(state)
        due, self.passed = count > self.passed, max(count, self.passed)
        return due

    def _count(self, state: TrainingState) -> int:
        if self.every is None:
            return 0
        done = {"steps": state.step, "tokens": state.tokens, "seconds": state.seconds}[self.every.kind]
        return int(done // self.every.value)
