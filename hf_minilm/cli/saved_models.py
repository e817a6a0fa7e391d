"""What the commands ask of a saved model before they open it, and what they say of one that cannot be opened."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePath


@contextlib.contextmanager
def unreadable_is_one_line(name: str) -> Iterator[None]:
    """Say in one line what keeps a model from being opened."""
    try:
        yield
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # transformers, safetensors and torch each have classes of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"model ({name}) must be whole; save it again ({reason}).") from error


def refuse_weights_elsewhere(folder: Path) -> None:
    """Raise ValueError for a folder whose index of weights leads out of it: transformers follows any path there."""
    for index in folder.glob("*.index.json") if folder.is_dir() else ():
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            outside = [file for file in files if PurePath(file).name != file or file in ("", "..") or "\\" in file]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"index of weights ({index}) must be JSON with a weight_map; save it again.") from error
        if outside:
            raise ValueError(f"index of weights ({index}) must name files beside it, not {outside[0]}; save it again.")
