"""Minimal pairs: does a model find the word that may stand in a place likelier than the one that never does?

A masked model is asked at the place itself: all tokens of the word are masked, and their log-probabilities added up.
A causal model is asked for the log-probability of both whole texts. Comparing the two of a pair, as in Marvin and
Linzen 2018, "Targeted syntactic evaluation of language models".
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..data.tokenizer import begin_token, special_tokens
from ..data.world_probes import Probe
from .intervals import wilson_interval
from .language_model import most_positions, predicts_next_token
from .token_scores import Query, target_log_probabilities


@dataclass(frozen=True, slots=True)
class PairAccuracy:
    """Share of minimal pairs of one kind that a model gets right; a tie counts half.

    Attributes:
        phenomenon: What the pairs ask; see `world_probes.PHENOMENA`.
        distance: What stands between the word and what decides it; see `Probe`.
        number: Pairs.
        accuracy: From 0 to 1; 0.5 is chance.
        low, high: Wilson's 95 % interval.
    """

    phenomenon: str
    distance: int
    number: int
    accuracy: float
    low: float
    high: float


def minimal_pair_accuracy(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], *, batch_size: int = 64
) -> tuple[PairAccuracy, ...]:
    """Score minimal pairs and tabulate them: phenomena in the order in which they first occur, distances ascending.

    Pairs that are longer than the model's `max_position_embeddings` are left out, and not counted.

    Args:
        model: A masked, pre-training or causal language model.
        tokenizer: Its tokenizer, a fast one.
        probes: The pairs.
        batch_size: Most texts at once.
    """
    longest = most_positions(model)
    build = _causal_query if predicts_next_token(model) else _masked_query
    asked: list[Probe] = []
    queries: list[Query] = []
    for probe in probes:
        pair = [build(tokenizer, probe, word) for word in (probe.good, probe.bad)]
        if max(len(query.input_ids) for query in pair) <= longest:
            asked.append(probe)
            queries.extend(pair)
    scores = [math.fsum(logs) for logs in target_log_probabilities(model, queries, batch_size=batch_size)]
    points: dict[tuple[str, int], list[float]] = defaultdict(list)
    for probe, good, bad in zip(asked, scores[::2], scores[1::2], strict=True):
        points[probe.phenomenon, probe.distance].append(points_of(good, bad))
    phenomena = list(dict.fromkeys(phenomenon for phenomenon, _ in points))
    kinds = sorted(points, key=lambda kind: (phenomena.index(kind[0]), kind[1]))
    won = {kind: (sum(points[kind]), len(points[kind])) for kind in kinds}
    return tuple(
        PairAccuracy(*kind, number, right / number, *wilson_interval(right, number))
        for kind, (right, number) in won.items()
    )


def points_of(good: float, bad: float) -> float:
    """Return 1 where the good text scores higher, 0 where the bad one does, and 0.5 where they tie."""
    return 0.5 if good == bad else float(good > bad)


def _masked_query(tokenizer: Any, probe: Probe, word: str) -> Query:
    """Mask all tokens of the word: seen alone, an unmasked one would give the rest away."""
    encoded = tokenizer(probe.prefix + word + probe.suffix, add_special_tokens=False, return_offsets_mapping=True)
    start, stop = len(probe.prefix), len(probe.prefix) + len(word)
    overlapping = [
        place for place, (begin, end) in enumerate(encoded["offset_mapping"]) if begin < stop and end > start
    ]
    ids = list(encoded["input_ids"])
    targets = tuple(ids[place] for place in overlapping)
    for place in overlapping:
        ids[place] = tokenizer.mask_token_id
    input_ids = (tokenizer.cls_token_id, *ids, tokenizer.sep_token_id)
    return Query(input_ids, tuple(place + 1 for place in overlapping), targets)


def _causal_query(tokenizer: Any, probe: Probe, word: str) -> Query:
    text = probe.prefix + word + probe.suffix
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return Query((begin_token(special_tokens(tokenizer)), *ids), tuple(range(len(ids))), ids)
