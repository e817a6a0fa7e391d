"""The training loop: one step after the other, each a pure function of the weights, the seed and the step's number."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers import PreTrainedModel

from ..data.objectives import Batch, Objective
from ..data.order import RowKey, RowOrder, share
from ..data.sequences import IGNORED
from .checkpoint import TrainingState
from .metrics import MetricsLog
from .optimizer import set_learning_rate
from .recipe import Recipe
from .schedule import Budget, finished, learning_rate_factor, progress
from .sharding import WholeModel


class NonFiniteError(FloatingPointError):
    """A loss or gradient was NaN or infinite; the weights are those before the step."""


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
        accelerator: The processes and devices.
        model: Wrapped by `accelerator.prepare`.
        optimizer: Likewise.
        objective: Rows into batches.
        metrics: Where the main process logs; None in the others.
        evaluate: Measures the model on held-out text, on the main process; `held_out_loss` in nats.
        save: Writes a checkpoint of a state on the main process; called on all.
        whole: The plain model beside a sharded one; None: each process has a whole model.
    """

    recipe: Recipe
    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: Any
    objective: Objective
    metrics: MetricsLog | None
    evaluate: Callable[[], dict[str, float]]
    save: Callable[[TrainingState], None]
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
        NonFiniteError: If a loss or gradient is NaN or infinite.
        Stopped: If SIGTERM or SIGINT asked for it, on any process.
    """
    settings = training.recipe.training
    order = RowOrder(training.objective.rows_in_epoch, settings.batch_rows, seed=settings.seed)
    evaluations, saves = Interval(training.recipe.evaluation.every, state), Interval(settings.save_every, state)
    clock = time.monotonic() - state.seconds
    training.model.train()
    with stop_signals() as received, progress_bar(training, state) as bar:
        batches = own_batches(training, order.rows(state.step), state.step)
        while True:
            state = replace(state, seconds=time.monotonic() - clock)
            agreed = agree(training.accelerator, batches, seconds=state.seconds, signal_number=received.number)
            state = replace(state, seconds=agreed.seconds)
            done = finished(settings.budget, state.step, tokens=state.tokens, seconds=state.seconds)
            if state.step:
                state = evaluate_and_save(training, state, evaluations, saves, agreed=agreed, done=done)
            if done:
                return state
            if agreed.signal_number:
                raise Stopped(agreed.signal_number, state.step)
            rate, rows = set_rate(training, state), order.rows(state.step)
            loss = add_up_gradient(training, batches, agreed, state.step)
            # A GPU is still computing, and the next step's batches are made meanwhile.
            begin = time.monotonic()
            batches = own_batches(training, order.rows(state.step + 1), state.step + 1)
            if is_idle(training.accelerator.device):
                bar.waited += time.monotonic() - begin
            move_weights(training, state.step, rows=rows)
            positions = settings.batch_rows * training.objective.positions_per_row
            state = replace(state, step=state.step + 1, tokens=state.tokens + positions)
            bar.advance(state)
            if state.step % settings.log_every == 0:
                report_step(training, state, loss, rate=rate, bar=bar)


@dataclass
class Agreed:
    """What all processes know of a step after one small exchange."""

    predicted: float
    sequences: float
    seconds: float
    signal_number: int


def agree(accelerator: Accelerator, batches: list[Batch], *, seconds: float, signal_number: int) -> Agreed:
    """Add up the counts of all processes, and take the main one's clock and any one's stop signal."""
    own = [predicted_tokens(batches), labelled_sequences(batches), seconds, signal_number]
    gathered = torch.tensor([own], dtype=torch.float64)
    if accelerator.num_processes > 1:  # alone, a GPU need not be waited for
        gathered = accelerator.gather(gathered.to(accelerator.device)).cpu()
    predicted, sequences = gathered[:, 0].sum(), gathered[:, 1].sum()
    return Agreed(float(predicted), float(sequences), float(gathered[0, 2]), int(gathered[:, 3].max()))


def predicted_tokens(batches: list[Batch]) -> int:
    """Count the labels; causal ones already leave out each sequence's first token."""
    return sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)


def labelled_sequences(batches: list[Batch]) -> int:
    """Count the next-sentence labels."""
    return sum(int((batch["next_sentence_label"] != IGNORED).sum()) for batch in batches if _has_order(batch))


def _has_order(batch: Batch) -> bool:
    return "next_sentence_label" in batch


def own_batches(training: Training, rows: list[RowKey], step: int) -> list[Batch]:
    """Make this process's micro-batches of a step, on the CPU."""
    accelerator = training.accelerator
    own = share(rows, accelerator.process_index, num_processes=accelerator.num_processes)
    size = training.recipe.training.micro_batch_rows or len(own)
    return [training.objective.batch(step, own[start : start + size]) for start in range(0, len(own), size)]


def is_idle(device: torch.device) -> bool:
    """Tell whether a device has done all that it was given; a CPU always has."""
    return device.type != "cuda" or torch.cuda.current_stream(device).query()


def set_rate(training: Training, state: TrainingState) -> float:
    """Set the learning rate of the step about to be made; a function of the global step, not of the processes."""
    settings = training.recipe.optimizer
    done = progress(training.recipe.training.budget, state.step + 0.5, tokens=state.tokens, seconds=state.seconds)
    factor = learning_rate_factor(
        settings.schedule,
        done,
        warmup_share=settings.warmup_share,
        decay_share=settings.decay_share,
        final_share=settings.final_share,
    )
    set_learning_rate(training.optimizer, settings.learning_rate * factor)
    return settings.learning_rate * factor


def add_up_gradient(training: Training, batches: list[Batch], agreed: Agreed, step: int) -> dict[str, torch.Tensor]:
    """Add up the gradient of all micro-batches and processes.

    Returns:
        This process's part of each loss; the parts of all processes add up to the step's.
    """
    accelerator, losses = training.accelerator, list[dict[str, torch.Tensor]]()
    arguments: dict[str, float] = {"num_items_in_batch": agreed.predicted}
    smoothing = training.recipe.objective.label_smoothing
    if smoothing:
        arguments["label_smoothing"] = smoothing
    if _has_order(batches[0]):
        arguments["num_sequences_in_batch"] = agreed.sequences
    for index, batch in enumerate(batches):
        seed_dropout(training.recipe.training.seed, step, accelerator.process_index, index)
        last = index == len(batches) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(training.model):
            outputs = training.model(**_on_device(batch, accelerator.device), **arguments)
            # Data-parallel gradients are averaged over processes; each loss is already divided by all processes' count.
            accelerator.backward(outputs.loss * accelerator.num_processes)
        losses.append(_parts(outputs))
    return {name: torch.stack([part[name] for part in losses]).sum() for name in losses[0]}


def _on_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to a device; to a GPU from pinned memory, so that nothing waits for the copy."""
    if device.type != "cuda":
        return {name: values.to(device) for name, values in batch.items()}
    return {name: values.pin_memory().to(device, non_blocking=True) for name, values in batch.items()}


def move_weights(training: Training, step: int, *, rows: list[RowKey]) -> None:
    """Clip the gradient, move the weights once, and clear it.

    Raises:
        NonFiniteError: If the gradient is not finite; the weights stay as they were.
    """
    longest = training.recipe.optimizer.gradient_clip or float("inf")
    norm = training.accelerator.clip_grad_norm_(training.model.parameters(), longest)
    if not bool(torch.isfinite(norm)):
        training.optimizer.zero_grad()
        raise NonFiniteError(_describe_non_finite(step, rows, float(norm)))
    training.optimizer.step()
    training.optimizer.zero_grad()


def _parts(outputs: Any) -> dict[str, torch.Tensor]:
    names = {"loss": "loss", "masked_lm_loss": "masked", "next_sentence_loss": "next_sentence"}
    return {name: outputs[key].detach().float() for key, name in names.items() if outputs.get(key) is not None}


def _describe_non_finite(step: int, rows: list[RowKey], norm: float) -> str:
    shown = ", ".join(f"{row.epoch}:{row.row}" for row in rows[:8])
    return (
        f"gradient norm ({norm}) must be finite; step {step} with rows {shown}, ... (epoch:row); go on from the last "
        "checkpoint with a lower optimizer.learning_rate, a longer optimizer.warmup_share, or training.precision=fp32."
    )


def seed_dropout(seed: int, step: int, process: int, micro_batch: int) -> None:
    """Make dropout a function of where it happens, so that a resumed run drops the same features."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, process, micro_batch]).generate_state(1, np.uint64)[0]))


def report_step(
    training: Training, state: TrainingState, losses: dict[str, torch.Tensor], *, rate: float, bar: "ProgressBar"
) -> None:
    """Log a step's losses, added up over all processes."""
    names = sorted(losses)
    summed = training.accelerator.reduce(torch.stack([losses[name] for name in names]), reduction="sum").tolist()
    parts = dict(zip(names, summed, strict=True))
    bar.show(parts)
    if training.metrics is None:
        return
    line = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3)}
    speed = {"tokens_per_second": bar.speed, "waiting_share": bar.waiting_share}
    training.metrics.write({**line, **_loss_names(parts), "learning_rate": rate, **speed})
    training.accelerator.log({**_loss_names(parts), "learning_rate": rate}, step=state.step)


def _loss_names(parts: dict[str, float]) -> dict[str, float]:
    """`loss` is always that of the predicted tokens, so that curves of all objectives compare."""
    if "masked" not in parts:
        return {"loss": parts["loss"]}
    named = {"loss": parts["masked"], "total_loss": parts["loss"]}
    return named | ({"next_sentence_loss": parts["next_sentence"]} if "next_sentence" in parts else {})


def evaluate_and_save(
    training: Training,
    state: TrainingState,
    evaluations: "Interval",
    saves: "Interval",
    *,
    agreed: Agreed,
    done: bool,
) -> TrainingState:
    """Do what is due after a step. What is saved is measured too, so that the best is known, unless a signal hurries.

    Returns:
        The state, with the best checkpoint so far.
    """
    saving = saves.due(state) or done
    evaluating = evaluations.due(state) or done or (saving and evaluations.every is not None)
    if not (saving or evaluating or agreed.signal_number):
        return state
    with training.gathered():
        if evaluating:
            held_out_loss = report_held_out(training, state)
            if saving:
                state = with_best(state, held_out_loss)
        if saving or agreed.signal_number:
            training.save(state)
    return state


def report_held_out(training: Training, state: TrainingState) -> float | None:
    """Measure and log the held-out loss, unless this step's is logged already; None but on the main process."""
    if training.metrics is None:
        return None
    for line in training.metrics.lines:
        if line["step"] == state.step and "held_out_loss" in line:
            return line["held_out_loss"]
    figures = training.evaluate()
    training.metrics.write({"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3), **figures})
    training.accelerator.log(figures, step=state.step)
    return figures["held_out_loss"]


def with_best(state: TrainingState, held_out_loss: float | None) -> TrainingState:
    """Note in a state that is about to be saved whether its held-out loss is the lowest of all that were saved."""
    if held_out_loss is None or held_out_loss >= state.losses.get("best_held_out_loss", float("inf")):
        return state
    return replace(state, losses={"best_held_out_loss": held_out_loss, "best_step": state.step})


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


@dataclass
class ReceivedSignal:
    """The number of the stop signal that came, 0 while none did."""

    number: int = 0


@contextlib.contextmanager
def stop_signals() -> Iterator[ReceivedSignal]:
    """Note SIGTERM and SIGINT instead of dying of them; the loop looks between two steps."""
    received = ReceivedSignal()

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a handler)
        received.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ProgressBar:
    """The share of the budget that is done as a bar, with the time left, the losses and the tokens a second.

    Attributes:
        speed: Token positions a second since the process began to train.
        waited: Seconds in which the device had nothing to do while the next batch was made; at most, on a GPU, which
            may have ended its work at any moment of making it.
    """

    def __init__(self, bar: "tqdm[Any]", budget: Budget, state: TrainingState) -> None:
        self.bar, self.budget = bar, budget
        self.start, self.start_tokens = time.monotonic(), state.tokens
        self.speed = self.waited = 0.0

    @property
    def waiting_share(self) -> float:
        """Share of the time in which the device waited for data."""
        return round(self.waited / max(time.monotonic() - self.start, 1e-9), 4)

    def advance(self, state: TrainingState) -> None:
        """Move to where the run stands."""
        self.speed = round((state.tokens - self.start_tokens) / max(time.monotonic() - self.start, 1e-9), 1)
        self.bar.update(_share_done(self.budget, state) - self.bar.n)

    def show(self, losses: dict[str, float]) -> None:
        """Show the last losses, and how fast it goes."""
        shown = {name: f"{value:.3f}" for name, value in sorted(losses.items())}
        speed = {"tokens/s": f"{self.speed:,.0f}", "waiting": f"{self.waiting_share:.1%}"}
        self.bar.set_postfix({**shown, **speed}, refresh=False)


@contextlib.contextmanager
def progress_bar(training: Training, state: TrainingState) -> Iterator[ProgressBar]:
    """Show a bar on the main process's standard error: every second on a terminal, twice a minute in a log."""
    budget = training.recipe.training.budget
    with tqdm(
        total=1.0,
        initial=_share_done(budget, state),
        desc="training",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}",
        disable=not training.accelerator.is_main_process,
        mininterval=1 if sys.stderr.isatty() else 30,
    ) as bar:
        yield ProgressBar(bar, budget, state)


def _share_done(budget: Budget, state: TrainingState) -> float:
    return progress(budget, state.step, tokens=state.tokens, seconds=state.seconds)
