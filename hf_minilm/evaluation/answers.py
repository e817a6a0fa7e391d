"""How near an answer comes to those that are right, as SQuAD and MLQA measure it.

SQuAD (Rajpurkar et al. 2016) compares answers in lower case, without punctuation and articles. MLQA (Lewis et al. 2020)
takes the articles of the language, and all punctuation of Unicode rather than that of ASCII alone: in English the two
differ for typographic quotation marks and dashes only.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "hi": "",
}
"""The articles of each language whose words stand between spaces, as MLQA lists them."""


def normalise_answer(answer: str, *, language: str) -> str:
    """Return an answer in lower case, without punctuation and articles, with single spaces.

    Args:
        answer: Any text.
        language: A key of `ARTICLES`.

    Raises:
        ValueError: If the language is another one.
    """
    if language not in ARTICLES:
        raise ValueError(f"language ({language}) must be one of {', '.join(ARTICLES)}; choose one of them.")
    kept = "".join(character for character in answer.lower() if not _is_punctuation(character))
    articles = ARTICLES[language].split()
    if articles:
        kept = re.sub(rf"\b({'|'.join(articles)})\b", " ", kept)
    return " ".join(kept.split())


def exact_match(answer: str, right: Sequence[str], *, language: str) -> float:
    """Return 1.0 where an answer is one of the right ones, both normalised, and else 0.0."""
    given = normalise_answer(answer, language=language)
    return float(any(given == normalise_answer(text, language=language) for text in right))


def token_f1(answer: str, right: Sequence[str], *, language: str) -> float:
    """Return the F1 of the words that an answer shares with a right one, the highest over the right ones."""
    given = normalise_answer(answer, language=language).split()
    return max(_shared(given, normalise_answer(text, language=language).split()) for text in right)


def _shared(given: list[str], right: list[str]) -> float:
    common = sum((Counter(given) & Counter(right)).values())
    return 2 * common / (len(given) + len(right)) if common else 0.0


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
