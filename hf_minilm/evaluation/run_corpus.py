"""What the run that made a model was trained on, as the recipe in the run's folder says.

The recipe names files, and files change. So the folder has `corpus.json` too, with the fingerprint of the corpus that
the run began with, and one more for each that it went on with.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.corpus import Corpus
from ..data.whole_file import write_whole
from ..yaml_text import read_yaml_file

RECIPE_FILE = "recipe.yaml"
CORPUS_FILE = "corpus.json"
_SECTIONS = ("data", "training")
_SETTINGS = ("languages", "world_documents", "encoding_errors", "validation_share")
_UNKNOWN = "held out is what a training on this text alone holds out by default, 5 %, as {}"
_KNOWN = "held out is what the run of the recipe.yaml beside the model held out of it"
_NOT_KEPT = "held out is what that run would hold out of it now, and its version may have trained on some of that"
_CHANGED = "held out is what that run would hold out of it now: its corpus was another, some may have been trained on"


def find_recipe(folder: Path | None) -> Path | None:
    """Return the recipe of the run that a model's folder belongs to, None where there is none.

    Args:
        folder: A run's `model/`, one of its checkpoints, or a folder that has a recipe too, as one that was pushed.
            Where a run has its own, that one counts: of a published recipe's paths the ends alone are left.
    """
    if folder is None:
        return None
    folder = folder.resolve()
    folders = [folder]
    if folder.name == "model":
        folders.insert(0, folder.parent)
    if folder.parent.name == "checkpoints":
        folders.insert(0, folder.parents[1])
    return next((each / RECIPE_FILE for each in folders if (each / RECIPE_FILE).is_file()), None)


def corpus_with(source: str, recipe: Path | None) -> tuple[Corpus | None, str]:
    """Open the corpus of a run if a source is of it, and say in words which part of the source was held out.

    Args:
        source: A file, a folder, a pattern, `hub:...` or a built-in corpus.
        recipe: The run's, as `find_recipe` finds it.

    Returns:
        The corpus, None where nothing is known of the source; and the words.

    Raises:
        ValueError: If the recipe is none, or the corpus has some of the source's files only.
        FileNotFoundError: If the source does not exist.
    """
    if recipe is None:
        return None, _UNKNOWN.format("no recipe.yaml lies beside the model")
    asked = Corpus([source])
    try:
        corpus = _corpus_of(recipe)
    except FileNotFoundError:
        return None, _UNKNOWN.format("the corpus of the recipe.yaml beside the model is not here")
    found, number = corpus.sources_shared_with(asked), asked.num_sources
    if not found:
        return None, _UNKNOWN.format("the recipe.yaml beside the model does not name it")
    if found < number:
        raise ValueError(
            f"files of {source} in the corpus of the model's run ({found} of {number}) must be all; name those in it."
        )
    fingerprints = trained_fingerprints(recipe.parent)
    if not fingerprints:
        return corpus, _NOT_KEPT
    return corpus, _KNOWN if fingerprints == [corpus.fingerprint()] else _CHANGED


def trained_fingerprints(run: Path) -> list[str]:
    """Read the fingerprints of the corpora that a run was trained on, in their order; none where they are not known.

    Raises:
        ValueError: If the run's `corpus.json` is not as it was written.
    """
    path = run / CORPUS_FILE
    if not path.is_file():
        return []
    try:
        fingerprints = json.loads(path.read_bytes())["fingerprints"]
        if fingerprints and all(isinstance(each, str) for each in fingerprints):
            return list(fingerprints)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ValueError(f"{path} must hold the run's fingerprints; delete it, if its corpus is certainly as it was.")


def refuse_another_corpus(run: Path, fingerprint: str) -> None:
    """Raise ValueError for a corpus that is not the one and only that a run was trained on, or may not be."""
    trained = trained_fingerprints(run)
    if not trained:
        raise ValueError(
            f"run ({run}) must have {CORPUS_FILE}: the version that made it held other documents out; train anew."
        )
    if trained != [fingerprint]:
        raise ValueError(
            f"documents of the corpus must be those that the run in {run} was trained on, and are others; put them "
            "back, or train anew."
        )


def keep_fingerprints(run: Path, fingerprints: Sequence[str]) -> None:
    """Write `corpus.json` into a run's folder, completely or not at all."""
    write_whole(run / CORPUS_FILE, json.dumps({"fingerprints": list(fingerprints)}, indent=1) + "\n")


def _corpus_of(path: Path) -> Corpus:
    recipe = _read(path)
    data = recipe.get("data") or {}
    sources = data.get("corpus") or "builtin:world"
    settings: dict[str, Any] = {name: data[name] for name in _SETTINGS if name in data}
    seed = (recipe.get("training") or {}).get("seed", 0)
    try:
        return Corpus([sources] if isinstance(sources, str) else sources, seed=seed, **settings)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"recipe ({path}) must have a run's settings of data; put the run's own back.") from error


def _read(path: Path) -> Mapping[str, Any]:
    recipe = read_yaml_file(path)
    if not all(isinstance(recipe.get(name) or {}, Mapping) for name in _SECTIONS):
        raise ValueError(f"recipe ({path}) must hold sections of settings; put the run's own back.")
    return recipe
