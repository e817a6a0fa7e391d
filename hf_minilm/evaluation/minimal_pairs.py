"""Minimal pairs: does a model find the word that may stand in a place likelier than the one that never does?

A masked model is asked at the place itself: all tokens of the word are masked, and their log-probabilities added up.
A causal model is asked for the log-probability of both whole texts. Comparing the two of a pair, as in Marvin and
Linzen 2018, "Targeted syntactic evaluation of language models".

Shapes: B texts of one length, T tokens, V vocabulary.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..data.world_probes import Probe
from .language_model import evaluating, prediction_logits, predicts_next_token

_NORMAL_QUANTILE = 1.959963984540054  # 97.5 %


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


@dataclass(frozen=True, slots=True)
class _Query:
    """Tokens that a model reads, and the tokens that it is asked for at some of its positions."""

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...]


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
    longest = getattr(getattr(model, "config", None), "max_position_embeddings", None) or math.inf
    build = _causal_query if predicts_next_token(model) else _masked_query
    asked: list[Probe] = []
    queries: list[_Query] = []
    for probe in probes:
        pair = [build(tokenizer, probe, word) for word in (probe.good, probe.bad)]
        if max(len(query.input_ids) for query in pair) <= longest:
            asked.append(probe)
            queries.extend(pair)
    scores = _log_probabilities(model, queries, batch_size=batch_size).reshape(-1, 2)
    points: dict[tuple[str, int], list[float]] = defaultdict(list)
    for probe, (good, bad) in zip(asked, scores.tolist(), strict=True):
        points[probe.phenomenon, probe.distance].append(0.5 if good == bad else float(good > bad))
    phenomena = list(dict.fromkeys(phenomenon for phenomenon, _ in points))
    kinds = sorted(points, key=lambda kind: (phenomena.index(kind[0]), kind[1]))
    won = {kind: (sum(points[kind]), len(points[kind])) for kind in kinds}
    return tuple(
        PairAccuracy(*kind, number, right / number, *wilson_interval(right, number))
        for kind, (right, number) in won.items()
    )


def wilson_interval(successes: float, number: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), from 0 to 1; it is sensible for few cases and shares of 1.

    Args:
        successes: From 0 to `number`.
        number: Cases, at least 1.
    """
    share, squared = successes / number, _NORMAL_QUANTILE**2
    centre = (share + squared / (2 * number)) / (1 + squared / number)
    spread = math.sqrt(share * (1 - share) / number + squared / (4 * number**2))
    half = _NORMAL_QUANTILE * spread / (1 + squared / number)
    # Rounding must not leave a share of 0 or 1 outside of its own interval.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _masked_query(tokenizer: Any, probe: Probe, word: str) -> _Query:
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
    return _Query(input_ids, tuple(place + 1 for place in overlapping), targets)


def _causal_query(tokenizer: Any, probe: Probe, word: str) -> _Query:
    text = probe.prefix + word + probe.suffix
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return _Query((tokenizer.bos_token_id, *ids), tuple(range(len(ids))), ids)


def _log_probabilities(model: nn.Module, queries: Sequence[_Query], *, batch_size: int) -> NDArray[np.float64]:
    """Return the sum of the targets' log-probabilities of each query, in nats.

    Queries that read the same tokens, as a masked pair of one-token words does, share one reading; readings of equal
    length share a batch, so that there is no padding.
    """
    askers: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        askers[query.input_ids].append(number)
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for input_ids in askers:
        by_length[len(input_ids)].append(input_ids)
    scores = np.zeros(len(queries))
    with evaluating(model) as device:
        for texts in by_length.values():
            for first in range(0, len(texts), batch_size):
                chunk = texts[first : first + batch_size]
                logits = prediction_logits(model(input_ids=torch.tensor(chunk, device=device)))  # [B, T, V]
                for row, input_ids in enumerate(chunk):
                    for number in askers[input_ids]:
                        scores[number] = _score(logits[row], queries[number])
    return scores


def _score(logits: torch.Tensor, query: _Query) -> float:
    """Sum the targets' log-probabilities, from logits [T, V]."""
    positions = torch.tensor(query.positions, device=logits.device)
    targets = torch.tensor(query.targets, device=logits.device)
    logs = logits[positions].float().log_softmax(-1).gather(1, targets[:, None])
    return float(logs.double().sum())
