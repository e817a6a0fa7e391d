"""A whole run: from a recipe to a trained model and a report, started fresh or gone on with."""

import json
import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ..data.order import RowKey
from ..data.sequences import IGNORED
from ..data.tokenizer import token_bytes
from ..evaluation.language_model import BatchSums, HeldOut, add_up, first_rows, held_out, measure_batches
from ..evaluation.minimal_pairs import minimal_pair_accuracy
from ..evaluation.report import BetterCheckpoint, Report, RunFacts
from ..evaluation.samples import (
    fill_gaps,
    fill_masks,
    generate_texts,
    held_out_beginnings,
    held_out_sentences,
    lecture_sentences,
)
from ..evaluation.translation import evaluate_translations
from ..evaluation.world_floor import MaskedFloor, causal_floor, masked_floor
from .background_work import BackgroundWork
from .checkpoint import (
    TrainingState,
    checkpoint_path,
    list_checkpoints,
    load_model,
    load_training_state,
    newest_valid_checkpoint,
    remove_leftovers,
    save_training_checkpoint,
)
from .compilation import compile_layers, resolve_compilation
from .launch import check_number, resolve_attention, resolve_precision, set_threads, start_accelerator
from .loop import Training, logged_held_out_loss, train
from .metrics import MetricsLog, draw_loss_curve
from .optimizer import build_optimizer, load_optimizer_state
from .preparation import Data, build_config, build_model, model_class, open_corpus, prepare_data
from .processes import Processes, end_with_launcher
from .recipe import Recipe, describe_recipe, difference, load_recipe, recipe_to_dict
from .run_lock import RunLock
from .sharding import WholeModel, shard_model, shares_out

RECIPE_FILE = "recipe.yaml"
REPORT_FILE = "report.txt"
PROBES_EACH = 100
CHANGEABLE = frozenset(
    f"training.{name}"
    for name in (
        *("micro_batch_rows", "precision", "log_every", "save_every", "keep_last", "processes", "threads", "timeout"),
        *("most_skipped", "attention", "compile", "vocabulary_loss", "parallelism"),
    )
) | {"data.cache_folder", "evaluation.translations", "evaluation.num_beams", "output.folder", "output.trackers"}
"""Settings that may change while a run is under way: they say how it works, and only rounding depends on them."""
_ROWS_SHOWN = 3
_CHARACTERS_SHOWN = 60
_NEVER_CHANGED = ("model.", "tokenizer.", "objective.name", "training.seed")
TASKS: dict[str, Literal["fill-mask", "text-generation", "translation"]] = {
    "masked": "fill-mask",
    "causal": "text-generation",
    "pairs": "translation",
    "denoising": "translation",
}
PROMPTS = {"es": "El perro que", "en": "The keys to the"}


def pretrain(recipe: Recipe, *, accept_changes: bool = False) -> str:
    """Train what the recipe says, or go on with it where its folder's run stands.

    Args:
        recipe: What to do.
        accept_changes: Whether to go on with a run whose recipe was another one; see `claim_folder`.

    Returns:
        The report, for a person to read; on processes other than the main one, nothing.

    Raises:
        ValueError: If the recipe cannot be carried out, or its folder holds another run.
        OSError: If a file cannot be read or written.
        NonFiniteError: If the losses of too many steps in a row are NaN or infinite.
        Stopped: If a signal asked for it; the run is saved.
    """
    folder = recipe.output_folder
    build_config(recipe)
    open_corpus(recipe)
    end_with_launcher()
    set_threads(recipe)
    precision = resolve_precision(recipe.training.precision)
    accelerator = start_accelerator(precision, trackers=recipe.output.trackers, folder=str(folder))
    processes = Processes()
    check_number(recipe, processes.number)
    shares_out(recipe.training.parallelism, num_processes=processes.number)
    with ExitStack() as stack:
        stack.enter_context(processes.naming_the_missing())
        if processes.is_main:
            refuse_foreign_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(RunLock(folder))
            claim_folder(recipe, folder, accept_changes=accept_changes)
            remove_leftovers(folder / "checkpoints")
        is_finished = processes.is_main and (folder / REPORT_FILE).exists()
        if processes.gather([is_finished]).any():
            return (folder / REPORT_FILE).read_text(encoding="utf-8") + _finished_line(folder) if is_finished else ""
        if not sys.stderr.isatty():
            transformers_logging.disable_progress_bar()
        with processes.main_first():
            data = prepare_data(recipe, folder, quiet=not processes.is_main)
        background = stack.enter_context(BackgroundWork())
        training, state = _prepare_training(
            recipe, data, folder, accelerator=accelerator, processes=processes, background=background
        )
        state = train(training, state)
        training.settle()
        with training.gathered():
            report = _finish(training, data, state, folder) if processes.is_main else ""
            processes.wait()
        return report


def refuse_foreign_folder(folder: Path) -> None:
    """Raise ValueError for a folder that holds files but no run."""
    if not (folder / RECIPE_FILE).exists() and folder.is_dir() and any(e.name != "run.lock" for e in folder.iterdir()):
        raise ValueError(f"output.folder ({folder}) must be new, and holds other files; choose another folder.")


def claim_folder(recipe: Recipe, folder: Path, *, accept_changes: bool = False) -> None:
    """Write the recipe into a run's folder, or see that the folder's run has the same one.

    A run that has saved nothing yet, as one that stopped at a bad byte of its corpus, gives way to the new recipe. What
    only says how the work is done may change at any time; see `CHANGEABLE`.

    Call it while holding the folder's lock.

    Args:
        recipe: The new one.
        folder: The run's.
        accept_changes: Whether the run may go on with another recipe; its model and tokenizer remain what they are.

    Raises:
        ValueError: If the folder holds another run.
    """
    path = folder / RECIPE_FILE
    if path.exists() and (list_checkpoints(folder / "checkpoints") or (folder / REPORT_FILE).exists()):
        changes = difference(load_recipe(path), recipe)
        _check_changes(changes, folder, accept_changes=accept_changes)
        if not changes:
            return
        print(f"changed: {'; '.join(changes.values())}", file=sys.stderr, flush=True)
        if not all(field in CHANGEABLE for field in changes):
            (folder / REPORT_FILE).unlink(missing_ok=True)  # a finished run goes on, with a larger budget for instance
    else:
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    writing = folder / f".{RECIPE_FILE}"
    writing.write_text(describe_recipe(recipe), encoding="utf-8")
    writing.replace(path)


def _check_changes(changes: dict[str, str], folder: Path, *, accept_changes: bool) -> None:
    fixed = [change for field, change in changes.items() if field.startswith(_NEVER_CHANGED)]
    if fixed:
        raise ValueError(
            f"output.folder ({folder}) must be new or hold this same run, and differs in {fixed[0]}; "
            "choose another with --set output.folder=PATH, or delete it."
        )
    others = [change for field, change in changes.items() if field not in CHANGEABLE]
    if others and not accept_changes:
        raise ValueError(
            f"output.folder ({folder}) must be new or hold this same run, and differs in {others[0]}; go on with the "
            "changed recipe with --accept-changes, choose another folder with --set output.folder=PATH, or delete it."
        )


def _finished_line(folder: Path) -> str:
    return f"\nThis run was finished before. To train anew, choose another output.folder or delete {folder}.\n"


def _prepare_training(
    recipe: Recipe,
    data: Data,
    folder: Path,
    *,
    accelerator: Accelerator,
    processes: Processes,
    background: BackgroundWork,
) -> tuple[Training, TrainingState]:
    checkpoints = folder / "checkpoints"
    newest = newest_valid_checkpoint(checkpoints)
    state = TrainingState(step=0, tokens=0, seconds=0.0, recipe=recipe_to_dict(recipe))
    if newest is not None:
        state = load_training_state(newest)
    model = _open_model(recipe, data, newest, precision=accelerator.mixed_precision)
    compiles = resolve_compilation(
        recipe.training.compile,
        precision=accelerator.mixed_precision,
        budget=recipe.training.budget,
        positions_per_step=recipe.training.batch_rows * data.train.positions_per_row,
    )
    is_sharded = shares_out(recipe.training.parallelism, num_processes=accelerator.num_processes)
    whole = WholeModel(model.to(accelerator.device)) if is_sharded else None
    bare = model if whole is None else whole.model
    if compiles:
        compile_layers(model)
    if is_sharded:
        shard_model(model, accelerator.device, num_processes=accelerator.num_processes)
    optimizer = build_optimizer(model, recipe.optimizer)
    if newest is not None:
        load_optimizer_state(newest, optimizer)
    before, state = state, replace(state, processes=processes.number, threads=torch.get_num_threads())
    if processes.is_main:
        where = "from the start" if newest is None else f"resuming after step {state.step}"
        settings = _describe_settings(recipe, accelerator, bare, compiles=compiles)
        workers = _workers(state)
        if newest is not None and _workers(before) != workers:
            is_exact = recipe.training.gradient_parts is not None and before.threads == state.threads
            workers += f" (before: {_workers(before)}{'' if is_exact else '; the last bits differ'})"
        _announce(bare, data, recipe, f"{where}; {settings}, {workers}")
    # Nothing is to be wrapped around a sharded model, as around one that is only evaluated.
    wrapped = accelerator.prepare_model(model, evaluation_mode=is_sharded)
    prepared = accelerator.prepare_optimizer(optimizer)
    if recipe.output.trackers:
        accelerator.init_trackers("hf_minilm", config={"recipe": json.dumps(recipe_to_dict(recipe))})
    sizes = token_bytes(data.tokenizer)

    def describe_rows(rows: list[RowKey]) -> str:
        return _beginnings(data, rows, step=state.step)

    def evaluate() -> dict[str, float]:
        figures = measure_together(bare, data, recipe, sizes, processes=processes)
        named = {"held_out_loss": figures.nats_per_token, "bits_per_byte": figures.bits_per_byte}
        named["next_sentence_accuracy"] = figures.next_sentence_accuracy
        return {name: value for name, value in named.items() if value is not None}

    def save(now: TrainingState) -> None:
        full: torch.optim.Optimizer = optimizer
        if whole is not None:
            full = whole.gather_optimizer(optimizer, recipe.optimizer, keeps=processes.is_main)
        if processes.is_main:
            save_training_checkpoint(
                checkpoints,
                now,
                model=bare,
                tokenizer=data.tokenizer,
                optimizer=full,
                keep_last=recipe.training.keep_last,
                best_step=now.losses.get("best_step"),
                background=background,
            )

    def settle() -> None:
        background.wait()
        # A launcher whose first process ends stops the others, the one that still saves among them.
        processes.wait()

    metrics = MetricsLog(folder / "metrics.jsonl", step=state.step) if processes.is_main else None
    training = Training(
        recipe=recipe,
        accelerator=accelerator,
        processes=processes,
        model=wrapped,
        optimizer=prepared,
        objective=data.train,
        metrics=metrics,
        describe_rows=describe_rows,
        evaluate=evaluate,
        save=save,
        settle=settle,
        whole=whole,
    )
    return training, state


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


def _describe_settings(recipe: Recipe, accelerator: Accelerator, model: PreTrainedModel, *, compiles: bool) -> str:
    arithmetic = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    compiled = ", compiled" if compiles else ""
    sharing = ""
    if recipe.training.parallelism == "sharded":
        sharing = ", model shared out" if accelerator.num_processes > 1 else ", the one process has all of the model"
    return f"{arithmetic}, {model.config._attn_implementation} attention{compiled}{sharing}"


def _workers(state: TrainingState) -> str:
    return f"processes: {state.processes}, threads: {state.threads or 'not known'}"


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
        file=sys.stderr,
        flush=True,
    )


def measure(
    model: PreTrainedModel, data: Data, recipe: Recipe, sizes: NDArray[np.int64], *, max_rows: int | None
) -> HeldOut:
    """Measure the loss on held-out rows, in float32 whatever the run's precision."""
    batches = data.held_out.evaluation_batches(recipe.training.batch_rows)
    return held_out(model, batches, token_bytes=sizes, max_rows=max_rows)


def measure_together(
    model: PreTrainedModel, data: Data, recipe: Recipe, sizes: NDArray[np.int64], *, processes: Processes
) -> HeldOut:
    """Measure the loss on held-out rows, each batch on one of the processes; the same to the bit on any number."""
    batches = first_rows(data.held_out.evaluation_batches(recipe.training.batch_rows), recipe.evaluation.rows)
    own = measure_batches(model, islice(batches, processes.index, None, processes.number), token_bytes=sizes)
    width = len(BatchSums._fields)
    everyones = processes.gather_rows(torch.tensor(own, dtype=torch.float64).reshape(-1, width))
    # Back into the order of the batches, of which process 0 has the first, process 1 the second, and so on.
    rounds = zip_longest(*(theirs.tolist() for theirs in everyones))
    return add_up(BatchSums(*sums) for turn in rounds for sums in turn if sums is not None)


def _finish(training: Training, data: Data, state: TrainingState, folder: Path) -> str:
    model = training.bare_model
    model_folder = folder / "model"
    writing = folder / ".model.writing"
    for path in (writing, model_folder):
        shutil.rmtree(path, ignore_errors=True)
    if training.recipe.is_sequence_to_sequence:
        # transformers would stop at 20 tokens.
        model.generation_config.max_new_tokens = training.recipe.data.sequence_length
    model.save_pretrained(writing)
    data.tokenizer.save_pretrained(writing)
    writing.rename(model_folder)
    if training.metrics is not None:
        draw_loss_curve(training.metrics.lines, folder / "loss.png")
    for tracker in training.accelerator.trackers:
        tracker.finish()
    report = _report(training, data, state, model_folder)
    (folder / "report.json").write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
    text = report.to_text()
    writing = folder / f".{REPORT_FILE}"
    writing.write_text(text, encoding="utf-8")
    writing.replace(folder / REPORT_FILE)
    return text


def _report(training: Training, data: Data, state: TrainingState, model_folder: Path) -> Report:
    recipe, model = training.recipe, training.bare_model
    name = recipe.objective.name
    measured = measure(model, data, recipe, token_bytes(data.tokenizer), max_rows=4096 if name == "masked" else None)
    samples = _samples(training, data)
    if data.world is not None and not recipe.is_sequence_to_sequence:
        probes = data.world.agreement_probes(6 * PROBES_EACH)
        samples["probes"] = minimal_pair_accuracy(model, data.tokenizer, probes)
    return Report(
        facts=_facts(training, data, state),
        held_out=measured,
        floor=_floor(training, data, measured),
        model_folder=str(model_folder),
        task=TASKS[name],
        better=_better_checkpoint(training, state, model_folder.parent / "checkpoints"),
        **samples,
    )


def _samples(training: Training, data: Data) -> dict[str, Any]:
    """Let the model do what it was trained for on held-out text, as arguments of `Report`."""
    recipe, model, tokenizer = training.recipe, training.bare_model, data.tokenizer
    name = recipe.objective.name
    if name == "pairs":
        num_beams = recipe.evaluation.num_beams
        beams = (1, num_beams) if num_beams > 1 else (1,)
        pairs = data.held_out_pairs(recipe.evaluation.translations)
        scores, translations = evaluate_translations(model, tokenizer, pairs, beams=beams)
        return {"scores": scores, "translations": translations}
    if name == "causal":
        prompts = [PROMPTS[language] for language in recipe.data.languages]
        if data.world is None:
            prompts = list(held_out_beginnings(data.held_out_documents())) or [""]
        return {"texts": generate_texts(model, tokenizer, prompts)}
    if name == "denoising":
        return {"translations": fill_gaps(model, tokenizer, held_out_sentences(data.held_out_documents()))}
    sentences = lecture_sentences(data.world) if data.world else held_out_sentences(data.held_out_documents())
    return {"filled": fill_masks(model, tokenizer, sentences)}


def _better_checkpoint(training: Training, state: TrainingState, checkpoints: Path) -> BetterCheckpoint | None:
    best_step = state.losses.get("best_step", state.step)
    if best_step == state.step:
        return None
    best, last = state.losses["best_held_out_loss"], logged_held_out_loss(training, state)
    return BetterCheckpoint(str(checkpoint_path(checkpoints, best_step)), best, last)


def _facts(training: Training, data: Data, state: TrainingState) -> RunFacts:
    recipe = training.recipe
    name = "masked + next sentence" if recipe.next_sentence else recipe.objective.name
    used = state.tokens * (1 - data.train.describe().wasted_share)
    return RunFacts(
        objective=name,
        corpus=", ".join(recipe.corpora),
        steps=state.step,
        tokens=round(used),
        seconds=state.seconds,
        parameters=training.bare_model.num_parameters(),
        device=str(training.accelerator.device),
        skipped=state.skipped,
    )


def _floor(training: Training, data: Data, measured: HeldOut) -> MaskedFloor | float | str | None:
    world = data.world
    if world is None or training.recipe.is_sequence_to_sequence:
        return None
    if training.recipe.objective.name == "causal":
        return causal_floor(world, data.held_out_documents(), measured.num_tokens)
    return masked_floor(training.bare_model, data.held_out, world, data.tokenizer)  # type: ignore[arg-type]
