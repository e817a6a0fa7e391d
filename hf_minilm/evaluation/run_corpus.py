"""What the run that made a model was trained on, as the recipe in the run's folder says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..data.corpus import Corpus

RECIPE_FILE = "recipe.yaml"
_SECTIONS = ("data", "training")
_SETTINGS = ("languages", "world_documents", "encoding_errors", "validation_share")
_UNKNOWN = "held out is what a training on this text alone holds out by default, 5 %, as {}"


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
    return (
        corpus,
        "held out is what the run of the recipe.yaml beside the model held out of it, if it is as it was",
    )


def _corpus_of(path: Path) -> Corpus:
    recipe = _read(path)
    data = recipe.get("data") or {}
    sources = data.get("corpus") or "builtin:world"
    settings: dict[str, Any] = {name: data[name] for name in _SETTINGS if name in data}
    seed = (recipe.get("training") or {}).get("seed", 0)
    return Corpus([sources] if isinstance(sources, str) else sources, seed=seed, **settings)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"recipe ({path}) must be YAML; put the run's own back ({reason}).") from error
    if not isinstance(recipe, Mapping) or not all(isinstance(recipe.get(name) or {}, Mapping) for name in _SECTIONS):
        raise ValueError(f"recipe ({path}) must hold sections of settings; put the run's own back.")
    return recipe
