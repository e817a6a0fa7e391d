"""A whole run: from a recipe to a trained model and a report, started fresh or gone on with."""

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ..data.best_prediction import MASK
from ..data.corpus import Corpus
from ..data.objectives import CausalObjective
from ..data.pairs import PairCorpus
from ..data.tokenizer import token_bytes
from ..data.whole_file import write_whole
from ..evaluation.evaluation_result import EVALUATION_FILE
from ..evaluation.language_model import HeldOut, held_out
from ..evaluation.minimal_pairs import minimal_pair_accuracy
from ..evaluation.report import BetterCheckpoint, Report, RunFacts
from ..evaluation.run_corpus import CORPUS_FILE, RECIPE_FILE, keep_fingerprints, trained_fingerprints
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
from ..model.saved_weights import open_to_other_readers
from .assembly import check_vocabulary_loss, prepare_training
from .background_work import BackgroundWork
from .checkpoint import (
    TrainingState,
    checkpoint_path,
    list_checkpoints,
    remove_leftovers,
)
from .curves import draw_loss_curve
from .launch import check_number, fix_order_of_sums, resolve_precision, set_threads, start_accelerator
from .loop import Training, logged_held_out_loss, train
from .memory import explaining_full_gpu
from .preparation import Data, build_config, open_corpus, prepare_data
from .processes import Processes, end_with_launcher
from .recipe import CHANGEABLE, Recipe, describe_recipe, difference, load_recipe
from .run_lock import RunLock
from .sharding import processes_of_a_copy
from .stacked_muon import product_dtype

REPORT_FILE = "report.txt"
PROBES_EACH = 100
MOST_ROWS_REPORTED = 4096
"""Held-out rows that the report's loss is of, at most: more would keep a large corpus's run for hours."""
_NEVER_CHANGED = ("model.", "tokenizer.", "objective.name", "training.seed")
TASKS: dict[str, Literal["fill-mask", "text-generation", "translation"]] = {
    "masked": "fill-mask",
    "causal": "text-generation",
    "pairs": "translation",
    "denoising": "translation",
}
_NOT_KEPT = "not kept by an earlier version"
PROMPTS = {"es": "El perro que", "en": "The keys to the"}


def pretrain(recipe: Recipe, *, accept_changes: bool = False) -> str:
    """Train what the recipe says, or go on with it where its folder's run stands.

    Args:
        recipe: What to do.
        accept_changes: Whether to go on with a run whose recipe or corpus was another one; see `claim_folder` and
            `claim_corpus`.

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
    check_vocabulary_loss(recipe.training.vocabulary_loss)
    corpus = open_corpus(recipe)
    end_with_launcher()
    precision = resolve_precision(recipe.training.precision)
    accelerator = start_accelerator(precision, trackers=recipe.output.trackers, folder=str(folder))
    set_threads(recipe)  # after Accelerate, which takes as many as there are cores where nothing else is said
    fix_order_of_sums(recipe)
    processes = Processes()
    check_number(recipe, processes.number)
    processes_of_a_copy(recipe.training, num_processes=processes.number)
    with ExitStack() as stack:
        stack.enter_context(processes.naming_the_missing())
        stack.enter_context(explaining_full_gpu(recipe.training.micro_batch_rows))
        refuse_unlike_arithmetic(recipe, precision, accelerator.device, processes=processes)
        with processes.main_first():
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
            if processes.is_main:
                claim_corpus(corpus, folder, accept_changes=accept_changes)
            data = prepare_data(recipe, folder, quiet=not processes.is_main, corpus=corpus)
        background = stack.enter_context(BackgroundWork())
        training, state = prepare_training(
            recipe, data, folder, accelerator=accelerator, processes=processes, background=background
        )
        state = train(training, state)
        training.settle()
        with training.gathered():
            report = _finish(training, data, state, folder) if processes.is_main else ""
            processes.wait()
        return report


def refuse_unlike_arithmetic(recipe: Recipe, precision: str, device: torch.device, *, processes: Processes) -> None:
    """Make sure that what each process chooses by its own hardware is the same.

    Where it is not, weights that Muon moves part in silence, and processes that share a model send what does not fit.

    Raises:
        ValueError: If it is not, with what to set.
    """
    bits = 16 if precision == "bf16" else 32
    processes.refuse_unlike("bits of training.precision", bits, advice="set it to fp32 or bf16")
    if recipe.optimizer.name == "muon":
        bits = torch.finfo(product_dtype(device.type)).bits
        advice = "start on processors of one kind, or set optimizer.name to adamw"
        processes.refuse_unlike("bits of the products of optimizer.name muon", bits, advice=advice)


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
            # A finished run goes on, with a larger budget for instance: what was measured is of a model that will be
            # no more. The evaluation.json beside the model itself goes when the new model takes its place.
            for name in (EVALUATION_FILE, REPORT_FILE):
                (folder / name).unlink(missing_ok=True)
    else:
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
        (folder / CORPUS_FILE).unlink(missing_ok=True)
    write_whole(path, describe_recipe(recipe))


def claim_corpus(corpus: Corpus | PairCorpus, folder: Path, *, accept_changes: bool = False) -> None:
    """Write the fingerprint of a run's corpus into its folder, or see that the corpus is still the same.

    In another one, rows come in another order, and what is held out now may have been trained on. Runs of versions that
    kept no fingerprint divided files otherwise, but not the built-in stories.

    Args:
        corpus: That of the run's recipe.
        folder: The run's, already claimed.
        accept_changes: Whether the run may go on with another one.

    Raises:
        ValueError: If the corpus is another, or `corpus.json` is not as it was written.
        OSError: If a file cannot be read or written.
    """
    known, fingerprint = trained_fingerprints(folder), corpus.fingerprint()
    if not known and list_checkpoints(folder / "checkpoints"):
        if isinstance(corpus, PairCorpus) or corpus.world is not None:
            return
        known = [_NOT_KEPT]
    if known[-1:] == [fingerprint]:
        return
    if known and not accept_changes:
        raise ValueError(
            f"documents of data.corpus must be those that the run in {folder} was trained on, and are others: what is "
            "held out now may have been among them; put them back, go on with --accept-changes, or choose another "
            "folder with --set output.folder=PATH."
        )
    if known:
        print("changed: the documents of data.corpus", file=sys.stderr, flush=True)
    keep_fingerprints(folder, [*known, fingerprint])


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


def measure(
    model: PreTrainedModel, data: Data, recipe: Recipe, sizes: NDArray[np.int64], *, max_rows: int | None
) -> HeldOut:
    """Measure the loss on held-out rows, in float32 whatever the run's precision."""
    batches = data.held_out.evaluation_batches(recipe.training.evaluation_rows)
    return held_out(model, batches, token_bytes=sizes, max_rows=max_rows)


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
    open_to_other_readers(writing)
    data.tokenizer.save_pretrained(writing)
    writing.rename(model_folder)
    if training.metrics is not None:
        draw_loss_curve(training.metrics.lines, folder / "loss.png")
    for tracker in training.accelerator.trackers:
        tracker.finish()
    report = _report(training, data, state, model_folder)
    write_whole(folder / "report.json", json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    text = report.to_text()
    write_whole(folder / REPORT_FILE, text)
    return text


def _report(training: Training, data: Data, state: TrainingState, model_folder: Path) -> Report:
    recipe, model = training.recipe, training.bare_model
    name = recipe.objective.name
    # The floor of a causal model of stories is that of them all.
    max_rows = None if name == "causal" and data.world is not None else MOST_ROWS_REPORTED
    measured = measure(model, data, recipe, token_bytes(data.tokenizer), max_rows=max_rows)
    notes = list(data.notes)
    samples = _samples(training, data, notes)
    if data.world is not None and not recipe.is_sequence_to_sequence:
        probes = data.world.agreement_probes(6 * PROBES_EACH)
        samples["probes"] = minimal_pair_accuracy(model, data.tokenizer, probes)
        _note_left_out(notes, len(probes) - sum(cell.number for cell in samples["probes"]), "minimal pairs")
    return Report(
        facts=_facts(training, data, state),
        held_out=measured,
        floor=_floor(training, data, measured),
        model_folder=str(model_folder),
        task=TASKS[name],
        better=_better_checkpoint(training, state, model_folder.parent / "checkpoints"),
        mask_token=data.tokenizer.mask_token or MASK,
        notes=tuple(notes),
        **samples,
    )


def _note_left_out(notes: list[str], number: int, what: str) -> None:
    if number:
        notes.append(f"{number:,} {what} left out below, longer than the model's positions")


def _samples(training: Training, data: Data, notes: list[str]) -> dict[str, Any]:
    """Let the model do what it was trained for on held-out text, as arguments of `Report`; note what was left out."""
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
        sentences = held_out_sentences(data.held_out_documents())
        translations = fill_gaps(model, tokenizer, sentences)
        _note_left_out(notes, len(sentences) - len(translations), "sentences with gaps")
        return {"translations": translations}
    sentences = lecture_sentences(data.world) if data.world else held_out_sentences(data.held_out_documents())
    filled = fill_masks(model, tokenizer, sentences)
    _note_left_out(notes, len(sentences) - len(filled), "sentences with masks")
    return {"filled": filled}


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
    if isinstance(data.held_out, CausalObjective):
        if data.held_out.store.lengths.max() + 2 > data.held_out.row_length:  # with a begin and an end token
            return "The floor is known only for whole stories, and those longer than a row are cut."
        return causal_floor(world, data.held_out_documents(), measured.num_tokens)
    return masked_floor(training.bare_model, data.held_out, world, data.tokenizer)  # type: ignore[arg-type]
