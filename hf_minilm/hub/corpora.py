"""What is known of a recipe's corpora: names as they may be published, languages, licences, and a line on each."""

from collections.abc import Iterable, Iterator

from ..training.recipe import Recipe
from .privacy import published_recipe

_OURS = "apache-2.0"
_BUILT_IN = {
    "builtin:world": "`builtin:world`, short stories that hf_minilm generates from a seed, with a lexicon and a "
    "grammar of its own",
    "builtin:pairs": "`builtin:pairs`, short stories in Spanish and in English that hf_minilm generates from a seed",
    "builtin:docs": "`builtin:docs`, the docstrings of Python's standard library and of installed libraries, each "
    "under its own licence",
}
_LANGUAGES = {"builtin:pairs": ("es", "en"), "builtin:docs": ("en",)}
_GENERATED = ("builtin:world", "builtin:pairs")
_LANGUAGE_NAMES = {"en": "English", "es": "Spanish", "multilingual": "several languages", "code": "source code"}


def corpora_of(recipe: Recipe) -> tuple[str, ...]:
    """Name a recipe's corpora as they may be published."""
    return published_recipe(recipe).corpora


def describe_corpus(corpus: str) -> str:
    """Write a corpus in Markdown."""
    if corpus in _BUILT_IN:
        return _BUILT_IN[corpus]
    names = list(dataset_names((corpus,)))
    return f"[{names[0]}](https://huggingface.co/datasets/{names[0]})" if names else f"`{corpus}`"


def dataset_names(corpora: Iterable[str]) -> Iterator[str]:
    """Name the data sets of the Hub among corpora, without configuration and split."""
    for corpus in corpora:
        if corpus.startswith("hub:"):
            yield corpus.removeprefix("hub:").split("@")[0].split(":")[0]


def is_generated(corpora: Iterable[str]) -> bool:
    """Tell whether all of the text comes from this project's generators."""
    return set(corpora) <= set(_GENERATED)


def known_license(corpora: tuple[str, ...]) -> str | None:
    """Return the licence of corpora that all come with this project, and None for any other."""
    return _OURS if is_generated(corpora) else None


def known_languages(recipe: Recipe) -> tuple[str, ...]:
    """Return the languages of corpora that are all built in, and none for any other."""
    languages: list[str] = []
    for corpus in recipe.corpora:
        if corpus not in _BUILT_IN:
            return ()
        languages += recipe.data.languages if corpus == "builtin:world" else _LANGUAGES[corpus]
    return tuple(dict.fromkeys(languages))


def language_names(codes: Iterable[str]) -> str:
    """Write languages for a person to read; those that have no name here by their code."""
    names = [_LANGUAGE_NAMES.get(code, f"`{code}`") for code in codes]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
