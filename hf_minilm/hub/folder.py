"""The folder that is uploaded: what a model needs and what says how it came about, and nothing else that lay there."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..conversion.sentence_modules import MODULE_FILE, MODULE_FOLDER, MODULES_FILE, SETTINGS_FILE, TRANSFORMER_FILE
from ..evaluation.evaluation_result import EVALUATION_FILE
from ..evaluation.run_corpus import CORPUS_FILE, RECIPE_FILE
from .card import save_card
from .card_sections import Described
from .privacy import published_report
from .record import CARD_FILE, CURVE_FILE, Record

WEIGHTS = r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
_OF_SENTENCE_TRANSFORMERS = (MODULES_FILE, SETTINGS_FILE, TRANSFORMER_FILE)
_TRAVELS = re.compile(
    rf"{WEIGHTS}|(generation_)?config\.json|[a-z_0-9]+\.py"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(txt|json)|merges\.txt|[\w.]+\.model|chat_template\.jinja"
    rf"|{'|'.join(map(re.escape, _OF_SENTENCE_TRANSFORMERS))}"
)
"""Files of a model's folder that are uploaded. What trained it stays: optimizer, manifest, arguments and logs."""
_REWRITTEN = (CARD_FILE, CURVE_FILE, RECIPE_FILE, CORPUS_FILE, "report.json", EVALUATION_FILE)
"""Files that may lie beside the model and are written anew."""
WRITTEN = (
    *("model.safetensors", "model-[0-9]*-of-[0-9]*.safetensors", "model.safetensors.index.json"),
    *(*_OF_SENTENCE_TRANSFORMERS, f"[0-9]*_*/{MODULE_FILE}"),
    *(RECIPE_FILE, CORPUS_FILE, "report.json", EVALUATION_FILE, CURVE_FILE),
)
"""Patterns of the files that an earlier upload may have left, and that a later one replaces or removes."""


def write_folder(described: Described, folder: Path) -> list[str]:
    """Write everything that is to be uploaded into a folder.

    Args:
        described: The model and its card.
        folder: New, or empty.

    Returns:
        The names of what lay beside the model and is left out.

    Raises:
        ValueError: If the folder holds files, or the model lacks its weights, tokenizer or code.
    """
    record = described.record
    _check_complete(record)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"folder ({folder}) must be new or empty; choose another one.")
    folder.mkdir(parents=True, exist_ok=True)
    left_out = []
    for path in _files_and_folders(record.model_folder):
        name = path.relative_to(record.model_folder).as_posix()
        is_of_a_module = path.parent != record.model_folder and path.name == MODULE_FILE
        if path.is_file() and (is_of_a_module or _TRAVELS.fullmatch(name)):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)
        elif name not in _REWRITTEN:
            left_out.append(name)
    for name, content in (("report.json", published_report(record)), (EVALUATION_FILE, record.evaluation)):
        if content is not None:
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    save_card(described, folder)
    return left_out


def _files_and_folders(folder: Path) -> Iterator[Path]:
    """Yield what lies in a model's folder, and what lies in the folders of its modules in place of these."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and MODULE_FOLDER.fullmatch(path.name):
            yield from sorted(path.iterdir())
        else:
            yield path


def _check_complete(record: Record) -> None:
    folder = record.model_folder
    names = {path.name for path in folder.iterdir()}
    if not any(re.fullmatch(WEIGHTS, name) for name in names):
        raise ValueError(f"model ({folder}) must have weights in safetensors; save it with save_pretrained.")
    if "tokenizer.json" not in names:
        raise ValueError(f"model ({folder}) must have its tokenizer beside it; save it there with save_pretrained.")
    code = {f"{target.split('.')[0]}.py" for target in (record.config.get("auto_map") or {"": "code."}).values()}
    missing = sorted(code - names)
    if missing:
        raise ValueError(
            f"model ({folder}) must carry its code, and lacks {missing[0]}; save it again with hf_minilm's own classes."
        )
