"""Pairs of segments for next-sentence prediction, drawn anew each epoch.

As in BERT (Devlin et al. 2019, "BERT: pre-training of deep bidirectional transformers", section 3.1 and appendix A.2)
a document is cut into stretches of whole sentences that fill a sequence, one in ten of them shorter; a random number
of a stretch's sentences is segment A, and B is either the rest (label 0) or text of another document (label 1).

Where we differ: BERT draws a random B from anywhere, and puts the unused continuation back. Here two pairs of
*different* documents form a couple whose second segments are of the same, or nearly the same, length, and either both
end their documents or neither does; a coin for each couple decides whether both keep their B (label 0) or exchange
them (label 1). Therefore

- a random B is never a true continuation, nor text of the same document;
- every token of the corpus stands in exactly one sequence an epoch: none is truncated, dropped or repeated;
- the lengths of A and B, the place of either in its document, and whether A opens and B closes a document say
  nothing about the label, because it is drawn after all of them and the exchange leaves them as they were.

What cannot be asked honestly is not asked (label -100) and serves masked modelling alone: a document of one sentence,
a sentence that fills a sequence by itself, the surplus of a document that holds more than half of all pairs, and the
few pairs for which no partner of fitting length is left.
"""

from bisect import bisect_right
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .draws import Purpose, random_bits, uniforms
from .sequences import IGNORED, Segments, Sequences, Units


def check_pairs_possible(units: Units) -> None:
    """Make sure that two documents can exchange segments.

    Raises:
        ValueError: If fewer than two documents have two sentences.
    """
    sentences = np.concatenate([[0], np.cumsum(units.begins_sentence)])[units.document_offsets]
    num_documents = int((np.diff(sentences) >= 2).sum())
    if num_documents < 2:
        raise ValueError(
            f"documents of two or more sentences ({num_documents}) must be at least 2 for next-sentence prediction; "
            "give more documents, or train the masked objective without next sentences."
        )


def draw_pairs(units: Units, longest: int, *, seed: int, epoch: int, short_share: float = 0.1) -> Sequences:
    """Draw an epoch's sequences; their segments together hold every token of the corpus once.

    Args:
        units: The corpus in whole sentences, none longer than `longest`.
        longest: Most tokens of A and B together.
        seed: The run's seed.
        epoch: The epoch, from 0.
        short_share: The share of stretches that aim at a random shorter length, from 0 to 1.

    Returns:
        The sequences in corpus order of their first segments.
    """
    bits = random_bits(seed, Purpose.PAIRS, counter=(0, epoch, 0), size=2 * len(units))
    firsts, middles, lasts = _cut(units, longest, draws=uniforms(bits), short_share=short_share)
    first, second = units.segments(firsts, middles), units.segments(middles, lasts)
    bits = random_bits(seed, Purpose.LABELS, counter=(0, epoch, 0), size=2 * len(firsts))
    is_pair, is_end = second.length > 0, lasts == units.document_offsets[first.document + 1]
    couples = np.concatenate(
        [
            _couples(
                np.flatnonzero(is_pair & of_kind), first, second, longest=longest, tie_breakers=bits[: len(firsts)]
            )
            for of_kind in (is_end, ~is_end)
        ]
    )
    exchanged = (bits[len(firsts) : len(firsts) + len(couples)] & np.uint64(1)).astype(np.int64)
    label = np.full(len(firsts), IGNORED)
    label[couples] = exchanged[:, None]
    partners = np.arange(len(firsts))
    partners[couples[exchanged == 1]] = couples[exchanged == 1][:, ::-1]
    # Without a label there is nothing to tell apart: the stretch stays whole.
    joined = Segments(first.document, first.start, first.length + np.where(label == IGNORED, second.length, 0))
    second = second.take(partners)
    asked = Segments(second.document, second.start, np.where(label == IGNORED, 0, second.length))
    return Sequences(joined, asked, label)


def _cut(
    units: Units, longest: int, *, draws: NDArray[np.float64], short_share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut every document into stretches: the units where A begins, where B begins, and where B ends.

    B is empty (it begins where it ends) where no sentence begins inside the stretch.
    """
    # Plain lists: this loop runs once a stretch, and Python reads a list's element far faster than an array's.
    boundaries, begins_sentence = units.boundaries.tolist(), units.begins_sentence.tolist()
    length_draws, middle_draws = draws[: len(units)].tolist(), draws[len(units) :].tolist()
    offsets = units.document_offsets.tolist()
    stretches: list[tuple[int, int, int]] = []
    for first, stop in pairwise(offsets):
        while first < stop:
            target, draw = longest, length_draws[first]
            if draw < short_share:
                target = 2 + int(draw / short_share * (longest - 1))
            last = _stretch_end(boundaries, first, stop, target=target, longest=longest)
            choices = [unit for unit in range(first + 1, last) if begins_sentence[unit]]
            middle = choices[int(middle_draws[first] * len(choices))] if choices else last
            stretches.append((first, middle, last))
            first = last
    table = np.array(stretches, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _stretch_end(boundaries: list[int], first: int, stop: int, *, target: int, longest: int) -> int:
    """Return the unit before which a stretch from unit `first` ends, in a document that ends before unit `stop`."""
    last = bisect_right(boundaries, boundaries[first] + target, first + 1, stop + 1) - 1
    if last <= first + 1:
        fits_two = first + 2 <= stop and boundaries[first + 2] - boundaries[first] <= longest
        last = first + 2 if fits_two else first + 1
    # A last sentence left alone could not make a pair.
    return last - 1 if stop - last == 1 and last - first > 2 else last


def _couples(
    candidates: NDArray[np.int64],
    first: Segments,
    second: Segments,
    *,
    longest: int,
    tie_breakers: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Match candidates of different documents whose second segments may change places, [num_couples, 2].

    One pass over the pairs by the length of B, as in the majority vote of Boyer and Moore (1991): those that wait for
    a partner all belong to one document, so what is left unmatched at the end is that document's surplus.
    """
    order = candidates[np.lexsort((tie_breakers[candidates], second.length[candidates]))]
    documents, lengths = first.document.tolist(), second.length.tolist()
    room = (longest - first.length).tolist()
    waiting: list[int] = []
    couples: list[tuple[int, int]] = []
    for pair in order.tolist():
        while waiting and documents[waiting[-1]] != documents[pair]:
            partner = waiting.pop()
            # Lengths ascend: one that has no room for this B has none for a later one, and goes without.
            if lengths[pair] <= room[partner]:
                couples.append((partner, pair))
                break
        else:
            waiting.append(pair)
    return np.array(couples, np.int64).reshape(-1, 2)
