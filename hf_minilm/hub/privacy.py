"""What must not leave the machine: tokens, home paths, host names, and the sentences of a corpus that is not ours.

Two steps, one after the other. `published_recipe` and `published_report` write what a run knows without the places
where it lay. `refuse_secrets` then reads every file of the folder that is to be uploaded, whoever wrote it.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from ..evaluation.provenance import reduce_path
from ..training.recipe import Recipe, recipe_from_dict, recipe_to_dict
from .record import Record

_TOKENS = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20}",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": r"\bAIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{32,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
_QUOTES_OF_THE_CORPUS = ("filled", "texts", "translations")
_SAFETENSORS_PREFIX = 8  # bytes: the header's length, little-endian


def published_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe with every path that leads somewhere on this machine reduced to its last part."""
    tree: dict[str, Any] = _each_text(recipe_to_dict(recipe), reduce_path)
    tree["data"]["cache_folder"] = None
    return recipe_from_dict(tree)


def published_report(record: Record) -> dict[str, Any] | None:
    """Return the figures of a run's report without places, and without sentences of a corpus that is not built in."""
    if record.report is None or record.recipe is None:
        return None
    report = dict(record.report)
    report["model_folder"] = reduce_path(report["model_folder"])
    among = f" (the last of {len(record.fingerprints)} texts)" if record.num_earlier_texts else ""
    report["facts"] = {**report["facts"], "corpus": ", ".join(published_recipe(record.recipe).corpora) + among}
    if report.get("better") is not None:
        report["better"] = {**report["better"], "folder": reduce_path(report["better"]["folder"])}
    if not record.is_built_in:
        report |= {name: [] for name in _QUOTES_OF_THE_CORPUS if name in report}
    return report


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def refuse_secrets(folder: Path, *, machine_paths: tuple[Path, ...] = ()) -> None:
    """Read every file of a folder, of weights their header only, and see that it gives nothing away.

    Args:
        folder: What is to be uploaded.
        machine_paths: Folders whose paths must not occur, besides the home folder.

    Raises:
        ValueError: With the file, the line and what was found, but not the secret itself.
    """
    patterns = dict(_secret_patterns(machine_paths))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _refuse_in(path, path.relative_to(folder).as_posix(), patterns)


def _refuse_in(path: Path, name: str, patterns: dict[str, re.Pattern[str]]) -> None:
    text = _readable_part(path)
    for what, pattern in patterns.items():
        match = pattern.search(text)
        if match is not None:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(f"file ({name}, line {line}) must not hold {what}; remove it and push again.")


def _readable_part(path: Path) -> str:
    with path.open("rb") as file:
        if path.suffix != ".safetensors":
            return file.read().decode("utf-8", errors="replace")
        length = int.from_bytes(file.read(_SAFETENSORS_PREFIX), "little")
        return file.read(min(length, path.stat().st_size)).decode("utf-8", errors="replace")


def _secret_patterns(machine_paths: tuple[Path, ...]) -> Iterator[tuple[str, re.Pattern[str]]]:
    for what, pattern in _TOKENS.items():
        yield what, re.compile(pattern)
    token = get_token()
    if token:
        yield "your token of the Hub", re.compile(re.escape(token))
    yield "the path of your home folder", _whole_path(Path.home())
    for path in machine_paths:
        yield f"a path of this machine ({path.name})", _whole_path(path)
    host = socket.gethostname()
    if len(host) > 3 and re.search(r"[\d.-]", host):  # a name that is a word would be found in any vocabulary
        yield "the name of this machine", re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])")


def _whole_path(path: Path) -> re.Pattern[str]:
    """Match a path, also as JSON writes one of Windows.

    The root folder is no secret. A name at the root, as `/root`, may be a word of a vocabulary: it is matched where
    the path goes on, and nowhere else.
    """
    if len(path.parts) < 2:
        return re.compile(r"(?!)")
    forms = {str(path), json.dumps(str(path))[1:-1]}
    end = r"/\w" if len(path.parts) == 2 else r"(?![\w-])"
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, sorted(forms)))}){end}")
