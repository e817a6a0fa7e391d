"""Checkpoints that are complete or do not exist.

A checkpoint is written beside its place, in a hidden folder; every file is synced to the disk; a manifest with the
size and the SHA-256 of each file goes in last; one rename puts the folder in its place; and only when the parent
folder is synced too are older checkpoints removed. So at every instant, a kill or a power cut included, the newest
complete checkpoint is whole, and one that was damaged later is recognised.

    checkpoints/checkpoint-1200/
        config.json  model.safetensors  tokenizer.json ...   opens with AutoModel and AutoTokenizer as it lies
        optimizer.safetensors  optimizer.json                moments by parameter name; step counts and groups
        training_state.json                                  steps, tokens, seconds, recipe, losses
        manifest.json                                        sizes and checksums of the others

A run seals a checkpoint, from its checksums to the removal of older ones, while it trains on: a kill loses what was
done since the last sealed one, which is at most an interval and the time that sealing takes.

No file is a pickle. One process writes; `RunLock` keeps a second run out of the folder.
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..model.saved_weights import open_to_other_readers
from .background_work import BackgroundWork
from .optimizer import save_optimizer_state

MANIFEST_FILE = "manifest.json"
STATE_FILE = "training_state.json"

_FORMAT = 1
_CHECKPOINT = re.compile(r"checkpoint-(?P<step>\d+)")
_LEFTOVER = re.compile(r"\.checkpoint-(?P<step>\d+)\.(?P<purpose>writing|removing|replaced)")
# Configuration, tokenizer, manifest and the file system's own blocks.
_SMALL_FILES_BYTES = 8 * 2**20
_NOT_OF_THE_MODEL = (MANIFEST_FILE, "evaluation.json")  # `hf-minilm evaluate` writes the latter into what it measures
_READ_BY_LIBRARIES = re.compile(r"\.(bin|gguf|h5|jinja|json|model|msgpack|pickle|pkl|pt|pth|py|safetensors|txt)")
_FULL = {errno.ENOSPC, errno.EDQUOT}

_logger = logging.getLogger(__name__)


class DiskFullError(OSError):
    """There is no room for a checkpoint. Those already written are as they were, and training may go on."""


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """Where a run stands, beside its weights and its optimizer.

    Attributes:
        step: Optimizer steps done.
        tokens: Tokens seen.
        seconds: Seconds of training over all restarts.
        recipe: The whole recipe, from `recipe_to_dict`.
        losses: Plain values that the loop needs again, such as the best loss and its step; losses in nats.
        skipped: Steps that left the weights as they were, as a loss or gradient was not finite.
        skipped_in_a_row: How many of these were the last ones.
        processes: How many processes trained together.
        threads: With how many threads each, on a CPU; both decide the bits of what they compute. 0: not known.
        opening_seconds: Those of the run's first step, which compiles: a schedule in time begins after it.
    """

    step: int
    tokens: int
    seconds: float
    recipe: dict[str, Any]
    losses: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: int = 0
    skipped_in_a_row: int = 0
    processes: int = 1
    threads: int = 0
    opening_seconds: float = 0.0


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name the checkpoint of a step."""
    return folder / f"checkpoint-{step}"


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder by step, the newest last; damaged ones too, unfinished ones not."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """Read the step from a checkpoint's name."""
    match = _CHECKPOINT.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"checkpoint ({checkpoint}) must be named checkpoint-STEP; give its folder.")
    return int(match["step"])


def save_checkpoint(
    folder: Path,
    step: int,
    write: Callable[[Path], None],
    *,
    keep_last: int,
    best_step: int | None = None,
    needed_bytes: int = 0,
    background: BackgroundWork | None = None,
) -> Path:
    """Write one checkpoint, completely or not at all, and then remove the older ones that need not be kept.

    If anything fails before the checkpoint is in its place, nothing of it remains and no older one is touched.

    Args:
        folder: Where checkpoints lie; made if missing.
        step: Optimizer steps done. A checkpoint of the same step is replaced.
        write: Writes the files into the folder that it is given.
        keep_last: How many of the newest to keep, at least 1. Checkpoints of later steps, left by a run that went
            back, neither count nor go.
        best_step: The step of one more to keep.
        needed_bytes: How much room to look for first.
        background: Does what comes after the files were written: checksums, syncing, renaming and removing.

    Returns:
        The checkpoint's folder.

    Raises:
        DiskFullError: If there is no room.
        ValueError: If keep_last is below 1.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last ({keep_last}) must be at least 1; a run without a checkpoint cannot resume.")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_path(folder, step)
    writing = _hidden(checkpoint, "writing")
    with _full_disk_is_named(folder, needed_bytes):
        shutil.rmtree(writing, ignore_errors=True)
        _check_free_bytes(folder, needed_bytes)
        with _removed_on_failure(writing):
            writing.mkdir()
            write(writing)

    def finish() -> None:
        with _full_disk_is_named(folder, needed_bytes):
            with _removed_on_failure(writing):
                _seal(writing, step)
                _put_in_place(writing, checkpoint)
            _sync(folder)
        _remove_replaced(checkpoint)
        _rotate(folder, step, keep_last=keep_last, best_step=best_step)

    if background is None:
        finish()
    else:
        background.start(finish)
    return checkpoint


def save_training_checkpoint(
    folder: Path,
    state: TrainingState,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    optimizer: torch.optim.Optimizer,
    keep_last: int,
    best_step: int | None = None,
    background: BackgroundWork | None = None,
) -> Path:
    """Save everything a run needs to go on, as one checkpoint; see `save_checkpoint`.

    Args:
        folder: Where checkpoints lie.
        state: Where the run stands; gives the checkpoint its step.
        model: The model, not wrapped.
        tokenizer: Its tokenizer, or None.
        optimizer: One made by `build_optimizer`.
        keep_last: How many of the newest to keep.
        best_step: The step of one more to keep.
        background: As for `save_checkpoint`.

    Raises:
        DiskFullError: If there is no room.
        ValueError: If a weight, a moment or a loss is not finite: such a checkpoint could not be trained further.
    """
    check_finite(model, optimizer)

    def write(writing: Path) -> None:
        model.save_pretrained(writing)
        if tokenizer is not None:
            tokenizer.save_pretrained(writing)
        save_optimizer_state(writing, optimizer)
        open_to_other_readers(writing)
        text = json.dumps(dataclasses.asdict(state), indent=1, allow_nan=False, ensure_ascii=False)
        (writing / STATE_FILE).write_text(text + "\n", encoding="utf-8")

    return save_checkpoint(
        folder,
        state.step,
        write,
        keep_last=keep_last,
        best_step=best_step,
        needed_bytes=estimate_bytes(model),
        background=background,
    )


def load_training_state(checkpoint: Path) -> TrainingState:
    """Read `training_state.json`.

    Raises:
        FileNotFoundError: If the checkpoint has none.
        ValueError: If it is not a training state.
    """
    path = checkpoint / STATE_FILE
    try:
        state = TrainingState(**json.loads(path.read_text(encoding="utf-8")))
        _check_state(state)
        return state
    except (ValueError, TypeError, RecursionError) as error:
        fields = ", ".join(field.name for field in dataclasses.fields(TrainingState))
        raise ValueError(f"training state ({path}) must be JSON with {fields}; choose an older checkpoint.") from error


def check_finite(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Refuse what could not be trained further.

    Raises:
        ValueError: If a weight or a moment is not finite.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = ((f"weights ({name})", parameter) for name, parameter in model.named_parameters())
    moments = (
        (f"{moment} of {names.get(id(parameter), 'a weight')}", value)
        for parameter, state in (optimizer.state.items() if optimizer is not None else ())
        for moment, value in state.items()
        if isinstance(value, torch.Tensor)
    )
    for name, tensor in itertools.chain(weights, moments):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"{name} must be finite; go back to an earlier checkpoint with a lower optimizer.learning_rate."
            )


def estimate_bytes(model: nn.Module) -> int:
    """Estimate the size of a checkpoint: the weights, AdamW's two moments for each trainable one, and small files."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights + 2 * trainable + _SMALL_FILES_BYTES


def newest_valid_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint whose every file is as it was written; one line of warning for each that is not.

    Reads all of it, at about 1 GB a second. Call `remove_leftovers` first.
    """
    for checkpoint in reversed(list_checkpoints(folder)):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        _logger.warning("checkpoint (%s) is damaged and skipped: %s.", checkpoint, damage)
    return None


def find_damage(checkpoint: Path, *, suffix: str = "") -> str | None:
    """Compare a checkpoint with its manifest; say what is wrong, file first, or give None if nothing is.

    A file that the manifest does not name is damage if a library would read it beside the others. With a suffix, as
    `.json`, only files whose names end in it are read.
    """
    if checkpoint.is_symlink():
        return "the folder is a link"
    try:
        step, files = _read_manifest(checkpoint / MANIFEST_FILE)
    except FileNotFoundError:
        return f"{MANIFEST_FILE} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{MANIFEST_FILE} is not as it was written"
    if step != checkpoint_step(checkpoint):
        return f"{MANIFEST_FILE} is that of step {step}"
    damages = (
        _find_file_damage(checkpoint, name, expected) for name, expected in files.items() if name.endswith(suffix)
    )
    damage = next((damage for damage in damages if damage is not None), None)
    return _find_foreign_file(checkpoint, files) if damage is None else damage


def remove_leftovers(folder: Path) -> None:
    """Clear what a killed save left. For the one process that holds the run's lock, before it looks for a checkpoint.

    A checkpoint that was moved aside for a new one of its step, which then never came, is put back.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        match = _LEFTOVER.fullmatch(path.name)
        if match is None:
            continue
        checkpoint = checkpoint_path(folder, int(match["step"]))
        if match["purpose"] == "replaced" and not checkpoint.exists():
            path.rename(checkpoint)
        elif path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path)
    _sync(folder)


@contextlib.contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _hidden(checkpoint: Path, purpose: str) -> Path:
    return checkpoint.with_name(f".{checkpoint.name}.{purpose}")


def _seal(writing: Path, step: int) -> None:
    """Sync every file and folder to the disk, with a manifest of all files as the last of them."""
    paths = sorted(path for path in writing.rglob("*") if path.is_file())
    files = {path.relative_to(writing).as_posix(): _fingerprint(path) for path in paths}
    for path in paths:
        _sync(path)
    manifest = writing / MANIFEST_FILE
    manifest.write_bytes(_manifest_bytes(step, files))
    _sync(manifest)
    for path in sorted((path for path in writing.rglob("*") if path.is_dir()), reverse=True):
        _sync(path)
    _sync(writing)


def _put_in_place(writing: Path, checkpoint: Path) -> None:
    """Rename into place. A folder cannot be renamed onto a full one, so an older one of the same step moves aside."""
    replaced = _hidden(checkpoint, "replaced")
    if checkpoint.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        checkpoint.rename(replaced)
    try:
        writing.rename(checkpoint)
    except BaseException:
        if replaced.exists():
            replaced.rename(checkpoint)
        raise


def _remove_replaced(checkpoint: Path) -> None:
    replaced = _hidden(checkpoint, "replaced")
    if replaced.exists():
        _remove(replaced)


def _rotate(folder: Path, step: int, *, keep_last: int, best_step: int | None) -> None:
    past = [checkpoint for checkpoint in list_checkpoints(folder) if checkpoint_step(checkpoint) <= step]
    for checkpoint in past[:-keep_last]:
        if checkpoint_step(checkpoint) != best_step:
            _remove(checkpoint)


def _remove(checkpoint: Path) -> None:
    """Remove a folder, hidden first, so that a kill half-way leaves no torn checkpoint; a failure only warns."""
    try:
        hidden = checkpoint
        if _CHECKPOINT.fullmatch(checkpoint.name):
            hidden = _hidden(checkpoint, "removing")
            shutil.rmtree(hidden, ignore_errors=True)
            checkpoint.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        _logger.warning("checkpoint (%s) is no longer needed but could not be removed: %s.", checkpoint, error)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def _manifest_bytes(step: int, files: Mapping[str, Any]) -> bytes:
    """Write the manifest in its one form, with a digest of itself: any other form of it counts as damage."""
    content = {"format": _FORMAT, "step": step, "files": dict(files)}
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return (json.dumps(content | {"digest": digest}, indent=1) + "\n").encode()


def _read_manifest(path: Path) -> tuple[int, dict[str, Any]]:
    if path.is_symlink() or not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    written = path.read_bytes()
    content = json.loads(written)
    step, files = content["step"], content["files"]
    if not all(isinstance(name, str) and isinstance(entry, dict) and "size" in entry for name, entry in files.items()):
        raise ValueError(f"manifest ({path}) must have the size and the sum of each file; choose an older checkpoint.")
    if written != _manifest_bytes(step, files):
        raise ValueError(f"manifest ({path}) must be as it was written; choose an older checkpoint.")
    return step, files


def _find_file_damage(checkpoint: Path, name: str, expected: Mapping[str, Any]) -> str | None:
    path = checkpoint / name
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        return f"{name} lies outside the checkpoint"
    if path.is_symlink() or not path.is_file():
        return f"{name} is missing"
    if path.resolve() != checkpoint.resolve() / relative:
        return f"{name} lies behind a link"
    try:
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{name} has {size} bytes instead of {expected['size']}"
        return None if _fingerprint(path) == expected else f"{name} differs from its checksum"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def _find_foreign_file(checkpoint: Path, files: Mapping[str, Any]) -> str | None:
    """Find a file that was not written with the others, and that transformers or tokenizers would read.

    It may change what is opened, or name code: an adapter, an index of weights, a pickle, a vocabulary.
    """
    for path in sorted(checkpoint.rglob("*")):
        name = path.relative_to(checkpoint).as_posix()
        if name not in files and name not in _NOT_OF_THE_MODEL and _READ_BY_LIBRARIES.fullmatch(path.suffix.lower()):
            return f"{name} is not in {MANIFEST_FILE}"
    return None


def _check_state(state: TrainingState) -> None:
    for name in ("step", "tokens", "seconds", "opening_seconds", "skipped", "skipped_in_a_row", "processes", "threads"):
        value = getattr(state, name)
        whole = name.endswith("seconds") or type(value) is int
        if type(value) not in (int, float) or not whole or not 0 <= value < math.inf:
            raise ValueError(f"{name} ({value}) must be a number from 0.")
    for name in ("recipe", "losses"):
        if not isinstance(getattr(state, name), dict):
            raise TypeError(f"{name} ({type(getattr(state, name)).__name__}) must be a mapping.")


def _check_free_bytes(folder: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(folder).free < needed_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def _full_disk_is_named(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Turn a full disk, whichever library met it, into one error with the path, the need and the room."""
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        free = shutil.disk_usage(folder).free
        raise DiskFullError(
            f"disk of {folder} ({free} bytes free) must have room for a checkpoint (about {needed_bytes} bytes); "
            "free some, lower training.keep_last, or choose another output.folder."
        ) from error


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # safetensors and tokenizers write in Rust and give the system's error as text only.
    return any(f"os error {number}" in str(error) or os.strerror(number) in str(error) for number in _FULL)
