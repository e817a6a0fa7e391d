"""What sentence-transformers keeps beside a model: pooling, normalising, lengths, prompts, an activation of scores.

All of it is small JSON, read field by field: nothing is copied that is not known here, no weights and no code. That
matters, as who opens one of our folders may trust its code, and these files could name other code, or repositories.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
from transformers import PreTrainedConfig
from transformers.utils.hub import cached_file

from .architecture import ACTIVATIONS

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
_OLDER_TRANSFORMER_FILE = "sentence_roberta_config.json"  # read where the other is not there or empty
MODULE_FILE = "config.json"
_LARGEST = 2**20  # bytes of a file
MODULE_FOLDER = re.compile(r"[0-9]+_[A-Za-z]+")
_TYPE = re.compile(r"sentence_transformers(?:\.\w+)*\.(\w+)", re.ASCII)
_ACTIVATION = re.compile(r"torch\.nn\.(?:modules\.[a-z_]+\.)?[A-Za-z0-9]+")

_OF_A_MODULE = ("idx", "name", "path", "type", "kwargs")
_OF_THE_SETTINGS = (
    *("__version__", "requirements", "model_type", "prompts", "default_prompt_name", "similarity_fn_name"),
    *("truncate_dim", "max_active_dims", "activation_fn"),
)
_OF_THE_TRANSFORMER = (
    *("max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"),
    *("processing_kwargs", "unpad_inputs", "query_length", "document_length", "query_expansion"),
)
"""Not what it hands to `from_pretrained`, such as a tokenizer or an attention kernel of another repository."""
_POOLINGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_MODULES: dict[str, tuple[str, ...]] = {
    "Transformer": _OF_THE_TRANSFORMER,
    "MLMTransformer": _OF_THE_TRANSFORMER,
    "Pooling": (
        *("embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt"),
        *(f"pooling_mode_{name}" for name in _POOLINGS),
    ),
    "Normalize": ("module_input_name", "module_output_name"),
    "Dropout": ("dropout",),
    "SpladePooling": ("pooling_strategy", "activation_function", "embedding_dimension", "word_embedding_dimension"),
    "LogitScore": ("true_token_id", "false_token_id", "module_input_name"),
}
"""Modules that have no weights but the model's own, and the fields of each one's file."""
_TRANSFORMERS = ("Transformer", "MLMTransformer")
_NEED_THEIR_FILE = ("Pooling", "LogitScore")


@dataclass
class _Place:
    """Where the files lie: a folder or a Hub name.

    Attributes:
        name: Which.
        revision: Of the Hub.
        unknown: Files that may be there or not, as the Hub does not answer.
    """

    name: str
    revision: str | None
    unknown: list[str] = field(default_factory=list)

    def read(self, file: str, known: Collection[str] | None = None) -> Any:
        """Read a JSON file; None where there is none.

        Args:
            file: Its path from the model's folder.
            known: The fields that it may have; None: it has none.

        Raises:
            ValueError: If it is not what it must be.
        """
        path = self._find(file)
        if path is None:
            return None
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise ValueError(f"file ({path}) must be a regular file of at most {_LARGEST:,} bytes; correct it.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"file ({path}) must be JSON; save the model again.") from error
        if known is not None:
            _refuse_unknown(content, known, what=f"file ({path})")
        return content

    def _find(self, file: str) -> Path | None:
        if Path(self.name).is_dir():
            path = Path(self.name) / file
            return path if path.exists() or path.is_symlink() else None
        found = cached_file(self.name, file, revision=self.revision, _raise_exceptions_for_missing_entries=False)
        if found is None:
            said = try_to_load_from_cache(self.name, file, revision=self.revision)
            self.unknown += [] if said is _CACHED_NO_EXIST else [file]
        return None if found is None else Path(found)


def read_beside(name: str, *, revision: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Read what sentence-transformers keeps beside a model.

    Args:
        name: A folder or Hub name.
        revision: Of the Hub.

    Returns:
        What each file holds, by its path from the model's folder; none where there is no `modules.json`, without which
        sentence-transformers reads none. And in words what could not be looked up.

    Raises:
        ValueError: If a module has weights or code of its own, or a file holds what is not known here.
        OSError: If a file cannot be read.
    """
    place = _Place(name, revision)
    modules = place.read(MODULES_FILE)
    files: dict[str, Any] = {}
    if modules is not None:
        files[MODULES_FILE] = modules
        for kind, folder in _kinds_and_folders(modules, name):
            files |= _read_transformer(place, kind) if kind in _TRANSFORMERS else _read_module(place, kind, folder)
        settings = place.read(SETTINGS_FILE, _OF_THE_SETTINGS)
        if settings is not None:
            _refuse_foreign(settings.get("activation_fn"), name=name)
            files[SETTINGS_FILE] = settings
    unknown = f"{', '.join(place.unknown)} of {name}, if there is such a file: the Hub does not answer"
    return files, [unknown] if place.unknown else []


def write_beside(files: dict[str, Any], folder: Path) -> None:
    """Write what was read beside a model into another one's folder, and read it again.

    Raises:
        ValueError: If what was read again differs.
        OSError: If it cannot be written.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if read_beside(str(folder))[0] != files:
        raise ValueError(f"files of sentence-transformers ({', '.join(files)}) must be what they were; try again.")


def refuse_foreign_activation(config: PreTrainedConfig, *, name: str) -> None:
    """Refuse a cross-encoder's configuration that would call anything but an activation of torch.

    Raises:
        ValueError: With what it names.
    """
    own, older = (getattr(config, attribute, None) for attribute in ACTIVATIONS)
    if own is not None:
        _refuse_unknown(own, ("activation_fn", "version"), what=f"{ACTIVATIONS[0]} (in config.json of {name})")
        _refuse_foreign(own.get("activation_fn"), name=name)
    _refuse_foreign(older, name=name)


def _refuse_foreign(activation: Any, *, name: str) -> None:
    if activation is not None and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
        raise ValueError(f"activation ({activation}) of {name} must be one of torch.nn; name another one or none.")


def _refuse_unknown(content: Any, known: Collection[str], *, what: str) -> None:
    """Refuse what is no dictionary, or has a field that is not known, and is not empty."""
    if not isinstance(content, dict):
        raise ValueError(f"{what} must hold fields; save the model again.")
    unknown = [key for key, value in content.items() if key not in known and value not in (None, {}, [], "")]
    if unknown:
        raise ValueError(f"{what} must hold {', '.join(known)} alone, not {unknown[0]}; remove that.")


def _kinds_and_folders(modules: Any, name: str) -> list[tuple[str, str]]:
    """Give kind and folder of each module, once they are known to be such as can be carried.

    Raises:
        ValueError: With the first that cannot.
    """
    if not isinstance(modules, list):
        raise ValueError(f"file ({MODULES_FILE} of {name}) must hold a list of modules; save the model again.")
    return [_kind_and_folder(module, name) for module in modules]


def _kind_and_folder(module: Any, name: str) -> tuple[str, str]:
    _refuse_unknown(module, _OF_A_MODULE, what=f"module ({str(module)[:80]}, of {name})")
    type_name, folder = str(module.get("type")), str(module.get("path"))
    match = _TYPE.fullmatch(type_name)
    if match is None or match[1] not in _MODULES:
        raise ValueError(
            f"module ({folder}, a {type_name}) of {name} must be one of sentence-transformers' {', '.join(_MODULES)}, "
            f"which have no weights or code of their own; convert a copy without {MODULES_FILE} for the model alone."
        )
    if folder if match[1] in _TRANSFORMERS else not MODULE_FOLDER.fullmatch(folder):
        raise ValueError(f"path ({folder}) of {match[1]} of {name} must be {_rule(match[1])}; save the model again.")
    return match[1], folder


def _rule(kind: str) -> str:
    return f"empty, as the model lies beside {MODULES_FILE}" if kind in _TRANSFORMERS else f"like 1_{kind}"


def _read_transformer(place: _Place, kind: str) -> dict[str, Any]:
    for file in (TRANSFORMER_FILE, _OLDER_TRANSFORMER_FILE):
        content = place.read(file, _MODULES[kind])
        if content:
            return {TRANSFORMER_FILE: content}
    return {}


def _read_module(place: _Place, kind: str, folder: str) -> dict[str, Any]:
    file = f"{folder}/{MODULE_FILE}"
    content = place.read(file, _MODULES[kind])
    if content is None and kind in _NEED_THEIR_FILE:
        raise ValueError(f"module ({folder}, a {kind}) of {place.name} must have its {file}; save the model again.")
    return {} if content is None else {file: content}
