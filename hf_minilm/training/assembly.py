"""From a tokenised corpus to a training that can begin: the model, its optimizer, and what the loop asks for."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..conversion import expressible_line
from ..data.order import RowKey
from ..data.sequences import IGNORED
from ..data.sources import joint_hash
from ..data.tokenizer import token_bytes
from ..evaluation.language_model import BatchSums, HeldOut, add_up, first_rows, measure_batches
from .background_work import BackgroundWork
from .checkpoint import TrainingState, load_training_state, newest_valid_checkpoint, save_training_checkpoint
from .checkpoint_model import load_model
from .compilation import compile_layers, resolve_compilation
from .launch import resolve_attention, trains_on_gpu
from .loop import Training
from .metrics import MetricsLog
from .optimizer import build_optimizer, load_optimizer_state
from .preparation import Data, build_config, build_model, model_class
from .processes import Processes
from .recipe import Recipe, recipe_to_dict
from .sharding import WholeModel, processes_of_a_copy, shard_model

_ROWS_SHOWN = 3
_CHARACTERS_SHOWN = 60


@dataclass(frozen=True)
class _Built:
    """A model that can train.

    Attributes:
        model: The one that trains; shared out, if the recipe says so.
        whole: The plain model beside one that is shared out.
        optimizer: Over the parameters of the one that trains.
        compiles: Whether the layers are compiled.
    """

    model: PreTrainedModel
    whole: WholeModel | None
    optimizer: torch.optim.Optimizer
    compiles: bool

    @property
    def bare(self) -> PreTrainedModel:
        """The model that is evaluated and saved."""
        return self.model if self.whole is None else self.whole.model


def check_vocabulary_loss(name: str) -> None:
    """Make sure that this machine has what computes the loss over the vocabulary.

    Raises:
        ValueError: If it is the kernel of a package that is absent, or of a device that is.
    """
    if name == "torch" and not hasattr(torch.nn.functional, "linear_cross_entropy"):
        raise ValueError("training.vocabulary_loss (torch) must have a later torch; update it, or choose auto.")
    if name != "liger":
        return
    has_package = importlib.util.find_spec("liger_kernel") is not None
    if not has_package or not trains_on_gpu():
        lacks = "a CUDA device; choose auto" if has_package else "the package liger-kernel; install it, or choose auto"
        raise ValueError(f"training.vocabulary_loss (liger) must have {lacks}.")


def prepare_training(
    recipe: Recipe,
    data: Data,
    folder: Path,
    *,
    accelerator: Accelerator,
    processes: Processes,
    background: BackgroundWork,
) -> tuple[Training, TrainingState]:
    """Build the model and its optimizer, or read them from the newest checkpoint that is whole.

    Args:
        recipe: The settings.
        data: The tokenised corpus.
        folder: The run's.
        accelerator: The devices.
        processes: The processes.
        background: Seals the checkpoints.

    Returns:
        What the loop needs, and where it begins.

    Raises:
        ValueError: If the processes do not see the same checkpoints.
    """
    newest = newest_valid_checkpoint(folder / "checkpoints")
    state = TrainingState(step=0, tokens=0, seconds=0.0, recipe=recipe_to_dict(recipe))
    before = state if newest is None else load_training_state(newest)
    processes.refuse_unlike(
        "step of the newest whole checkpoint",
        before.step,
        advice="wait until all see the same files, and start again with the same command",
    )
    state = replace(
        before,
        recipe=recipe_to_dict(recipe),
        losses=_comparable_losses(before, recipe, data),
        processes=processes.number,
        threads=torch.get_num_threads(),
    )
    built = _build(recipe, data, newest, accelerator=accelerator, processes=processes)
    if processes.is_main:
        where = "from the start" if newest is None else f"resuming after step {state.step}"
        workers = _workers(state) if newest is None else _changed_workers(recipe, before, state)
        _announce(built.bare, data, recipe, f"{where}; {_describe_settings(recipe, accelerator, built)}, {workers}")
    if recipe.output.trackers:
        accelerator.init_trackers("hf_minilm", config={"recipe": json.dumps(recipe_to_dict(recipe))})

    def settle() -> None:
        background.wait()
        # A launcher whose first process ends stops the others, the one that still saves among them.
        processes.wait()

    training = Training(
        recipe=recipe,
        accelerator=accelerator,
        processes=processes,
        # Nothing is to be wrapped around a model that is shared out, as around one that is only evaluated.
        model=accelerator.prepare_model(built.model, evaluation_mode=built.whole is not None),
        optimizer=accelerator.prepare_optimizer(built.optimizer),
        objective=data.train,
        metrics=MetricsLog(folder / "metrics.jsonl", step=state.step) if processes.is_main else None,
        describe_rows=lambda rows: _beginnings(data, rows, step=state.step),
        evaluate=_evaluation(recipe, data, built.bare, processes),
        save=_saving(recipe, data, built, folder / "checkpoints", processes=processes, background=background),
        settle=settle,
        whole=built.whole,
    )
    return training, state


def _comparable_losses(before: TrainingState, recipe: Recipe, data: Data) -> dict[str, Any]:
    """Keep the best loss so far, unless it is of other held-out text or of another question about it."""
    settings = [recipe.evaluation.rows, recipe.data.sequence_length, asdict(recipe.objective)]
    measured = joint_hash((data.corpus.fingerprint(), json.dumps(settings)))
    losses = before.losses if before.losses.get("measured", measured) == measured else {}
    return {**losses, "measured": measured}


def _build(
    recipe: Recipe, data: Data, newest: Path | None, *, accelerator: Accelerator, processes: Processes
) -> _Built:
    model = _open_model(recipe, data, newest, precision=accelerator.mixed_precision)
    compiles = resolve_compilation(
        recipe.training.compile,
        precision=accelerator.mixed_precision,
        budget=recipe.training.budget,
        positions_per_step=recipe.training.batch_rows * data.train.positions_per_row,
    )
    copy_size = processes_of_a_copy(recipe.training, num_processes=processes.number)
    whole = WholeModel(model.to(accelerator.device)) if copy_size > 1 else None
    if compiles:
        compile_layers(model)
    if copy_size > 1:
        mesh = shard_model(model, accelerator.device, num_processes=processes.number, copy_size=copy_size)
        processes.watch(mesh.get_all_groups())
    optimizer = build_optimizer(model, recipe.optimizer)
    if newest is not None:
        load_optimizer_state(newest, optimizer)
    return _Built(model, whole, optimizer, compiles)


def _open_model(recipe: Recipe, data: Data, newest: Path | None, *, precision: str) -> PreTrainedModel:
    """Build the model with its first weights, or read it from a checkpoint."""
    config = build_config(recipe, data.tokenizer)
    attention = resolve_attention(
        recipe.training.attention, precision=precision, row_length=recipe.data.sequence_length, config=config
    )
    if newest is None:
        model = build_model(recipe, data.tokenizer, attention=attention)
    else:
        model = load_model(newest, model_class(recipe), config, attention=attention)
    cast(Any, model).vocabulary_loss = recipe.training.vocabulary_loss
    return model


def _describe_settings(recipe: Recipe, accelerator: Accelerator, built: _Built) -> str:
    arithmetic = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    compiled = ", compiled" if built.compiles else ""
    sharing = ""
    if recipe.training.parallelism == "sharded":
        copies = accelerator.num_processes // (recipe.training.shard_over or accelerator.num_processes)
        sharing = f", {copies} copies of the model, each shared out" if copies > 1 else ", model shared out"
        if built.whole is None:
            sharing = ", the one process has all of the model"
    return f"{arithmetic}, {built.model.config._attn_implementation} attention{compiled}{sharing}"


def _workers(state: TrainingState) -> str:
    return f"processes: {state.processes}, threads: {state.threads or 'not known'}"


def _changed_workers(recipe: Recipe, before: TrainingState, now: TrainingState) -> str:
    if _workers(before) == _workers(now):
        return _workers(now)
    is_exact = recipe.training.gradient_parts is not None and before.threads == now.threads
    return f"{_workers(now)} (before: {_workers(before)}{'' if is_exact else '; the last bits differ'})"


def _beginnings(data: Data, rows: list[RowKey], *, step: int) -> str:
    """Show how the texts of the first of some rows begin, as a person can look for them."""
    batch = data.train.batch(step, rows[:_ROWS_SHOWN])
    ids, labels = batch["input_ids"], batch["labels"]
    if ids.shape == labels.shape:
        ids = torch.where(labels == IGNORED, ids, labels)  # what was masked
    texts = data.tokenizer.batch_decode(ids, skip_special_tokens=True)
    shown = ", ".join(f'"{" ".join(text[:_CHARACTERS_SHOWN].split())}..."' for text in texts)
    return shown if len(rows) <= _ROWS_SHOWN else f"{shown} and {len(rows) - _ROWS_SHOWN} more"


def _announce(model: PreTrainedModel, data: Data, recipe: Recipe, where: str) -> None:
    rows = data.train.describe()
    print(
        f"{type(model).__name__}, {model.num_parameters():,} parameters, vocabulary {len(data.tokenizer):,}; "
        f"{rows.num_rows:,} rows of {data.train.positions_per_row} an epoch, {rows.wasted_share:.1%} padding; "
        f"budget {recipe.training.budget}; {where}",
        expressible_line(model.config, type(model).__name__),
        sep="\n",
        file=sys.stderr,
        flush=True,
    )


def _evaluation(
    recipe: Recipe, data: Data, model: PreTrainedModel, processes: Processes
) -> Callable[[], dict[str, float]]:
    sizes = token_bytes(data.tokenizer)

    def evaluate() -> dict[str, float]:
        figures = measure_together(model, data, recipe, sizes, processes=processes)
        named = {"held_out_loss": figures.nats_per_token, "bits_per_byte": figures.bits_per_byte}
        named["next_sentence_accuracy"] = figures.next_sentence_accuracy
        return {name: value for name, value in named.items() if value is not None}

    return evaluate


def measure_together(
    model: PreTrainedModel, data: Data, recipe: Recipe, sizes: NDArray[np.int64], *, processes: Processes
) -> HeldOut:
    """Measure the loss on held-out rows, each batch on one of the processes; the same to the bit on any number."""
    batches = first_rows(data.held_out.evaluation_batches(recipe.training.evaluation_rows), recipe.evaluation.rows)
    own = measure_batches(model, islice(batches, processes.index, None, processes.number), token_bytes=sizes)
    width = len(BatchSums._fields)
    everyones = processes.gather_rows(torch.tensor(own, dtype=torch.float64).reshape(-1, width))
    # Back into the order of the batches, of which process 0 has the first, process 1 the second, and so on.
    rounds = zip_longest(*(theirs.tolist() for theirs in everyones))
    return add_up(BatchSums(*sums) for turn in rounds for sums in turn if sums is not None)


def _saving(
    recipe: Recipe, data: Data, built: _Built, checkpoints: Path, *, processes: Processes, background: BackgroundWork
) -> Callable[[TrainingState], None]:
    def save(now: TrainingState) -> None:
        optimizer = built.optimizer
        if built.whole is not None:
            optimizer = built.whole.gather_optimizer(optimizer, recipe.optimizer, keeps=processes.is_main)
        if processes.is_main:
            save_training_checkpoint(
                checkpoints,
                now,
                model=built.bare,
                tokenizer=data.tokenizer,
                optimizer=optimizer,
                keep_last=recipe.training.keep_last,
                best_step=now.losses.get("best_step"),
                background=background,
            )

    return save
