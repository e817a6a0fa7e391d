"""Save a converted model: all of it, read again and found equal, or nothing."""

import json
import shutil
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import safe_open
from transformers import PreTrainedTokenizerBase

from ..model.saved_weights import open_to_other_readers
from .convert import OUR_MODEL_TYPES, Converted
from .opening import open_tokenizer, open_weights, silent
from .proof import token_ids
from .sentence_modules import write_beside
from .tensors import own_names

RECORD_FILE = "conversion.json"


def refuse_used_folder(folder: Path) -> None:
    """Refuse to write over anything, before any work.

    Raises:
        ValueError: If the folder is a file or holds files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder ({folder}) must be new or empty; choose another one.")


def refuse_missing_folder(option: str, file: Path | None) -> None:
    """Refuse a file that could not be written in the end, before any work.

    Args:
        option: How the user gives it.
        file: Where it is to be written; None: nowhere.

    Raises:
        ValueError: If its folder does not exist, or the file is one itself.
    """
    if file is None:
        return
    if not file.absolute().parent.is_dir():
        raise ValueError(f"{option} ({file}) must be in a folder that exists; make it first.")
    if file.is_dir():
        raise ValueError(f"{option} ({file}) must be a file, and is a folder; name one in it.")


def save(converted: Converted, folder: Path) -> None:
    """Save a model, its tokenizer, what lay beside it and `conversion.json`: all of it, read again, or nothing.

    Raises:
        ValueError: If the folder holds files, or what was read again differs.
        OSError: If it cannot be written.
    """
    refuse_used_folder(folder)
    folder = folder.resolve()
    writing = folder.with_name(f".{folder.name}.{uuid4().hex}")
    writing.mkdir(parents=True)
    try:
        with silent():
            converted.model.save_pretrained(writing)
        open_to_other_readers(writing)
        record = converted.to_json()
        _check_saved_weights(converted, writing)
        if converted.tokenizer is not None:
            converted.tokenizer.save_pretrained(writing)
            record["proof"]["texts_with_equal_token_ids"] = _check_saved_tokenizer(converted.tokenizer, writing)
        write_beside(converted.beside, writing)
        (writing / RECORD_FILE).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        writing.replace(folder)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _check_saved_weights(converted: Converted, folder: Path) -> None:
    """Open what was saved, and compare it with what was to be saved, tensor by tensor, bit by bit."""
    model = converted.model
    arguments = {} if model.config.model_type in OUR_MODEL_TYPES else converted.head.arguments
    reopened, missing, extra = open_weights(str(folder), type(model), **arguments)
    tensors = model.state_dict()
    held = {name: tensors[name] for name in own_names(model)}
    saved = {name: path for path in folder.glob("*.safetensors") for name in _names_in(path)}
    computed = model._keys_to_ignore_on_save or ()  # whatever opens the file computes them
    unequal = [
        name
        for name, tensor in held.items()
        if name not in computed and (name not in saved or not _is_saved(tensor, name, saved[name]))
    ]
    if missing or extra or unequal or own_names(reopened) != held.keys():
        names = ", ".join([*missing, *extra, *unequal])
        raise ValueError(f"saved weights ({folder}) must be those that were saved, and differ in {names}; try again.")


def _names_in(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _is_saved(tensor: torch.Tensor, name: str, path: Path) -> bool:
    """Compare bit for bit, so that a NaN equals itself; the file is let go each time, or all of it were in memory."""
    with safe_open(path, framework="pt") as file:
        other = file.get_tensor(name)
    if tensor.dtype != other.dtype or tensor.shape != other.shape:
        return False
    return torch.equal(tensor.cpu().contiguous().view(torch.uint8), other.view(torch.uint8))


def _check_saved_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> int:
    """See that a tokenizer reads the same after it is opened again; give the number of texts."""
    reopened, ids = open_tokenizer(str(folder)), token_ids(tokenizer)
    if reopened is None or token_ids(reopened) != ids:
        raise ValueError("tokenizer must give the same ids when it is opened again, and does not.")
    return len(ids)
