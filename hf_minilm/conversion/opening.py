"""Open a saved model, native or ours, running none of its code and no pickles; what is wrong with it is one line."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, cast

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging
from transformers.utils.hub import cached_file

from ..one_line import one_line
from .architecture import Architecture, Head
from .tensors import refuse_tensors, several

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
)
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAY_BE_MISSING: dict[str, Any] = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}


def open_config(name: str, *, revision: str | None = None) -> PreTrainedConfig:
    """Open the configuration of a folder or of a Hub name.

    Raises:
        ValueError: If it is not one that transformers or this package knows.
        OSError: If there is none.
    """
    folder = Path(name)
    if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
        raise FileNotFoundError(f"model ({name}) must be a model's folder, not a run's; give {folder / 'model'}.")
    refuse_weights_elsewhere(folder)
    rule = f"model ({name}) must be a folder with a model, or a Hub name that can be reached"
    if not folder.is_dir():
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise FileNotFoundError(f"{rule}; correct it.") from error
    with unreadable_is_one_line(name):
        try:
            return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        except OSError as error:
            raise FileNotFoundError(f"{rule} ({one_line(error)}).") from error


def open_weights(
    name: str,
    model_class: type[PreTrainedModel],
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    **arguments: Any,
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """Open a model as a class, in a dtype, or else in one that holds its weights as they are.

    Returns:
        The model, the names that its file lacks, and those in the file that it has no place for.

    Raises:
        ValueError: If the file cannot be read.
        OSError: If there is none.
    """
    with unreadable_is_one_line(name), silent():
        model, loading = cast(Any, model_class).from_pretrained(
            name,
            revision=revision,
            dtype=dtype or _stored_dtype(name, revision=revision),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **arguments,
        )
    return model.eval(), sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])


def _stored_dtype(name: str, *, revision: str | None) -> torch.dtype | str:
    """Find the dtype that holds all weights of a model's files without loss; its configuration may name another one."""
    where: dict[str, Any] = {"revision": revision, **_MAY_BE_MISSING}
    paths = [cached_file(name, "model.safetensors", **where)]
    index = None if paths[0] else cached_file(name, "model.safetensors.index.json", **where)
    if index is not None:
        shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
        paths = [cached_file(name, shard, **where) for shard in shards]
    stored = {code for path in paths if path is not None for code in _dtypes_in(path)}
    found = [dtype for code, dtype in _DTYPES.items() if code in stored]
    if not found:
        return "auto"  # and transformers says what is missing
    return found[0] if len(found) == 1 or torch.float64 in found else torch.float32


def _dtypes_in(path: str) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 (a file is no dictionary)


def open_native(
    name: str, architecture: Architecture, head: Head, *, revision: str | None, is_named: bool
) -> tuple[Head, PreTrainedModel, list[str]]:
    """Open a native model with the class that its file is of.

    Many a file holds more than the class in its configuration reads, as BERT's own do: it is opened as the class that
    reads all of it, where there is one.

    Args:
        name: A folder or Hub name.
        architecture: Its architecture.
        head: The head that the configuration names.
        revision: Of the Hub.
        is_named: Whether the configuration names that head; if not, what belongs to another is dropped.

    Returns:
        The head, the model, and the names of the tensors in the file that are dropped.

    Raises:
        ValueError: If the file lacks a tensor, or has one that has no counterpart.
    """
    model, missing, unread = _opened_as(head, name, architecture, revision=revision)
    dropped = [key for key in unread if key.startswith(head.dropped)]
    if not is_named:
        body = tuple({key.split(".")[0] for key in model.state_dict()})
        dropped += [key for key in unread if key not in dropped and not key.startswith(body)]
    extra = [key for key in unread if key not in dropped]
    if not extra or missing:
        refuse_tensors(missing=missing, extra=extra)
        return head, model, dropped
    for wider in (other for other in architecture.heads if any(key.startswith(_own(other)) for key in extra)):
        model, missing, unread = _opened_as(wider, name, architecture, revision=revision)
        if not missing and not unread:
            return wider, model, []
    refuse_tensors(extra=extra)
    return head, model, dropped


def _opened_as(
    head: Head, name: str, architecture: Architecture, *, revision: str | None
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """Open a native model as one class, and do not count what older files hold besides."""
    model, missing, extra = open_weights(name, head.native_class, revision=revision, **head.arguments)
    return model, missing, [key for key in extra if not any(re.search(known, key) for known in architecture.derived)]


def _own(head: Head) -> tuple[str, ...]:
    """Give the beginnings of the names of a head's own tensors."""
    return tuple(name for line in head.names for name in several(line.native))


def open_tokenizer(name: str, *, revision: str | None = None) -> PreTrainedTokenizerBase | None:
    """Open the tokenizer beside a model, or give None where there is none.

    Raises:
        ValueError: If there is one and it cannot be read.
    """
    files = (cached_file(name, file, revision=revision, **_MAY_BE_MISSING) for file in _TOKENIZER_FILES)
    if not any(files):
        return None
    with unreadable_is_one_line(name), silent():
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)


@contextlib.contextmanager
def unreadable_is_one_line(name: str) -> Iterator[None]:
    """Turn what transformers, safetensors and torch raise for a damaged folder into one line.

    Raises:
        ValueError: In place of the libraries' own classes.
    """
    try:
        yield
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"model ({name}) must be whole; save it again ({one_line(error)}).") from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let transformers say nothing of what is missing, as errors here do; show progress to people alone."""
    before, has_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if has_progress:
            logging.enable_progress_bar()


def refuse_weights_elsewhere(folder: Path) -> None:
    """Refuse a folder whose index of weights leads out of it: transformers follows any path there.

    Raises:
        ValueError: With the path.
    """
    for index in folder.glob("*.index.json") if folder.is_dir() else ():
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            outside = [file for file in files if PurePath(file).name != file or file in ("", "..") or "\\" in file]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"index of weights ({index}) must be JSON with a weight_map; save it again.") from error
        if outside:
            raise ValueError(f"index of weights ({index}) must name files beside it, not {outside[0]}; save it again.")
