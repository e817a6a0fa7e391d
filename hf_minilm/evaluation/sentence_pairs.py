"""Minimal pairs of sentences: how often a model finds the good one likelier.

A tie counts one half, so that a model which cannot tell them apart scores 50 %. Each paradigm has its own accuracy;
the headline is their mean, in which each weighs the same, as BLiMP and Zorro report it.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .evaluation_result import Figure
from .intervals import stratified_bootstrap_interval, wilson_interval
from .minimal_pairs import points_of
from .pair_files import SentencePair
from .text_scores import TextScorer

_PAIRS_AT_ONCE = 1_000
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class PairFigures:
    """What pairs measure.

    Attributes:
        figures: By metric; see `evaluate_pairs`.
        num_pairs: Pairs that were scored.
        num_ties: Those among them whose sentences score the same.
        num_left_out: Pairs with a sentence that is longer than the model can read.
    """

    figures: dict[str, Figure]
    num_pairs: int
    num_ties: int
    num_left_out: int


def evaluate_pairs(
    scorer: TextScorer,
    pairs: Iterable[SentencePair],
    *,
    seed: int,
    limit: int | None = None,
    known_words: frozenset[str] | None = None,
) -> PairFigures:
    """Score pairs.

    Args:
        scorer: The model.
        pairs: Any number of any paradigms.
        seed: That of the bootstrap.
        limit: Most pairs of a paradigm, the first ones; None: all.
        known_words: The words of the text that the model was trained on, as `words_of` gives them, if they are known.

    Returns:
        `macro_accuracy`, with a bootstrap interval over the pairs of each paradigm; `accuracy` of all pairs alike;
        `intact_pairs`, the share of pairs in which the tokenizer knows no word as unknown and takes none apart into
        single characters; with `known_words` also `known_pairs`, the share of pairs with no other words, and
        `macro_accuracy/known` on those; `accuracy/PARADIGM` of each.

    Raises:
        ValueError: If there is no pair that the model can read.
    """
    points: dict[str, list[float]] = defaultdict(list)
    known_points: dict[str, list[float]] = defaultdict(list)
    num_ties = num_left_out = num_intact = 0
    kept = pairs if limit is None else _first_of_each(pairs, limit)
    waiting = iter(kept)
    while chunk := list(itertools.islice(waiting, _PAIRS_AT_ONCE)):
        scores = scorer.score([sentence for pair in chunk for sentence in (pair.good, pair.bad)])
        for pair, good, bad in zip(chunk, scores[::2], scores[1::2], strict=True):
            if good is None or bad is None:
                num_left_out += 1
                continue
            won = points_of(good.nats, bad.nats)
            points[pair.paradigm].append(won)
            num_ties += won == 0.5
            num_intact += good.is_intact and bad.is_intact
            if known_words is not None and known_words.issuperset(words_of(f"{pair.good} {pair.bad}")):
                known_points[pair.paradigm].append(won)
    num_pairs = sum(map(len, points.values()))
    if not num_pairs:
        raise ValueError(
            f"minimal pairs that the model can read (0 of {num_left_out}) must be at least 1; give others."
        )
    figures = {
        "macro_accuracy": _macro(points, seed=seed),
        "accuracy": share_of(sum(map(sum, points.values())), num_pairs),
        "intact_pairs": share_of(num_intact, num_pairs),
    }
    if known_words is not None:
        figures["known_pairs"] = share_of(sum(map(len, known_points.values())), num_pairs)
        if known_points:
            figures["macro_accuracy/known"] = _macro(known_points, seed=seed)
    figures |= {f"accuracy/{paradigm}": share_of(sum(won), len(won)) for paradigm, won in points.items()}
    return PairFigures(figures, num_pairs, num_ties, num_left_out)


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text in lower case, runs of letters; no numbers."""
    return frozenset(_WORD.findall(text.lower()))


def share_of(successes: float, number: int, *, counted: str = "pairs") -> Figure:
    """Return a share with Wilson's interval."""
    low, high = wilson_interval(successes, number)
    return Figure(
        value=successes / number, low=low, high=high, n=number, counted=counted, unit="share", interval="Wilson"
    )


def _macro(points: dict[str, list[float]], *, seed: int) -> Figure:
    low, high = stratified_bootstrap_interval(list(points.values()), seed=seed)
    means = [sum(won) / len(won) for won in points.values()]
    return Figure(
        value=sum(means) / len(means),
        low=low,
        high=high,
        n=sum(map(len, points.values())),
        counted="pairs",
        unit="share",
        interval="bootstrap over the pairs of each paradigm",
    )


def _first_of_each(pairs: Iterable[SentencePair], limit: int) -> Iterable[SentencePair]:
    counts: dict[str, int] = defaultdict(int)
    for pair in pairs:
        counts[pair.paradigm] += 1
        if counts[pair.paradigm] <= limit:
            yield pair
