"""Pairs of segments for next-sentence prediction, drawn anew each epoch.

As in BERT (Devlin et al. 2019, "BERT: pre-training of deep bidirectional transformers", section 3.1 and appendix A.2)
a document is cut into stretches that fill a sequence, one in ten of them shorter (see `cutting`); a random number of a
stretch's sentences is segment A, and B, which begins with a sentence, is either the rest (label 0) or text of another
document (label 1).

Where we differ: BERT draws a random B from anywhere, truncates the pair, and puts the unused continuation back. Here
two pairs of *different* documents form a couple whose second segments are of the same, or nearly the same, length and
end alike: both end their documents, or a sentence, or are cut inside one. A coin for each couple decides whether both
keep their B (label 0) or exchange them (label 1). Therefore

- a random B is never a true continuation, nor text of the same document;
- every token of the corpus stands in exactly one sequence an epoch: none is truncated, dropped or repeated;
- the lengths of A and B, the place of either in its document, whether A opens and B closes a document or is cut say
  nothing about the label, because it is drawn after all of them and the exchange leaves them as they were.

What cannot be asked honestly is not asked (label -100) and serves masked modelling alone: a document of one sentence,
a stretch inside which no sentence begins, the surplus of a document that holds more than half of all pairs, and the
few pairs for which no partner of fitting length is left.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cutting import Sentences, cut_documents
from .draws import Purpose, random_bits, uniforms
from .sequences import IGNORED, Segments, Sequences

if TYPE_CHECKING:
    from .store import TokenStore

# A part of a sentence shorter than this is no segment by itself, but for very short sequences.
_LEAST_FRAGMENT = 8


def check_pairs_possible(sentences: Sentences) -> None:
    """Make sure that two documents can exchange segments.

    Raises:
        ValueError: If fewer than two documents have two sentences.
    """
    num_documents = int((np.diff(sentences.document_offsets) >= 2).sum())
    if num_documents < 2:
        raise ValueError(
            f"documents of two or more sentences ({num_documents}) must be at least 2 for next-sentence prediction; "
            "give more documents, or train the masked objective without next sentences."
        )


def draw_pairs(
    store: "TokenStore", sentences: Sentences, longest: int, *, seed: int, epoch: int, short_share: float = 0.1
) -> Sequences:
    """Draw an epoch's sequences; their segments together hold every token of the corpus once.

    Args:
        store: The tokenised corpus.
        sentences: Its sentences.
        longest: Most tokens of A and B together.
        seed: The run's seed.
        epoch: The epoch, from 0.
        short_share: The share of stretches that aim at a random shorter length, from 0 to 1.

    Returns:
        The sequences in corpus order of their first segments.
    """
    stretches = cut_documents(store, sentences, longest, seed=seed, epoch=epoch, short_share=short_share)
    couples, first_length = _couples(stretches, sentences, longest, seed=seed, epoch=epoch)
    exchanged = (random_bits(seed, Purpose.LABELS, counter=(0, epoch, 0), size=len(couples)) & np.uint64(1)) == 1
    label = np.full(len(first_length), IGNORED)
    label[couples] = exchanged[:, None]
    # Without a label there is nothing to tell apart: the stretch stays whole.
    first_length = np.where(label == IGNORED, stretches.length, first_length)
    partners = np.arange(len(label))
    partners[couples[exchanged]] = couples[exchanged][:, ::-1]
    second = Segments(stretches.document, stretches.start + first_length, stretches.length - first_length)
    return Sequences(Segments(stretches.document, stretches.start, first_length), second.take(partners), label)


@dataclass(frozen=True, slots=True)
class _Divisions:
    """Ways to divide stretches into A and B, any number of them for a stretch.

    Attributes:
        stretch: The stretch that is divided, [num_divisions].
        document: Its document, [num_divisions].
        ending: How its B ends: 0 with the document, 1 with a sentence, 2 inside one, [num_divisions].
        first: The length of A, [num_divisions].
        second: The length of B, [num_divisions].
    """

    stretch: NDArray[np.int64]
    document: NDArray[np.int64]
    ending: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]


class _Divider:
    """Divides stretches before each sentence that begins inside them.

    Attributes:
        lowest: The first sentence with which a stretch's B may begin, [num_stretches].
        number: How many there are, [num_stretches].
    """

    def __init__(self, stretches: Segments, sentences: Sentences, *, least: int) -> None:
        """A part of a sentence is no segment by itself if it has fewer than `least` tokens."""
        self._stretches, self._starts = stretches, sentences.starts
        self._begin = begin = sentences.document_starts[stretches.document] + stretches.start
        end = begin + stretches.length
        low, high = np.searchsorted(self._starts, begin, side="right"), np.searchsorted(self._starts, end)
        opened, closed = self._starts[low - 1] == begin, self._starts[high] == end
        short_first, short_last = self._starts[low] - begin < least, end - self._starts[high - 1] < least
        self.lowest = low + (~opened & short_first)
        self.number = np.maximum(high - (~closed & short_last) - self.lowest, 0)
        closes_document = end == sentences.document_starts[stretches.document + 1]
        self._ending = np.where(closes_document, 0, np.where(closed, 1, 2))

    def divide(self, stretch: NDArray[np.int64], sentence: NDArray[np.int64]) -> _Divisions:
        """Divide each stretch before the sentence of the same place, [num_divisions] each."""
        document, length = self._stretches.document[stretch], self._stretches.length[stretch]
        first = self._starts[sentence] - self._begin[stretch]
        return _Divisions(stretch, document, self._ending[stretch], first, length - first)

    def divide_everywhere(self, stretch: NDArray[np.int64]) -> _Divisions:
        """Divide these stretches in every way."""
        number = self.number[stretch]
        place = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        return self.divide(np.repeat(stretch, number), np.repeat(self.lowest[stretch], number) + place)


def _couples(
    stretches: Segments, sentences: Sentences, longest: int, *, seed: int, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the stretches into A and B, and match those of different documents whose Bs may change places.

    Each draws one of its divisions, and those of nearly the same length are matched. Those that are left try all of
    theirs, of which a small corpus too has some of equal length; the lengths take their turns at random, so that none
    is preferred.

    Returns:
        The couples, [num_couples, 2], and the length of each stretch's A, [num_stretches].
    """
    divider = _Divider(stretches, sentences, least=min(_LEAST_FRAGMENT, longest // 8))
    num_lengths = longest + 1  # Bs that end differently stay apart: their lengths count from another multiple of this
    bits = random_bits(seed, Purpose.PAIRS, counter=(0, epoch, 0), size=len(stretches.length) + num_lengths)
    tie_breakers, turns = bits[:-num_lengths], np.argsort(bits[-num_lengths:], kind="stable")

    divisible = np.flatnonzero(divider.number)
    numbers = (uniforms(tie_breakers[divisible]) * divider.number[divisible]).astype(np.int64)
    drawn = divider.divide(divisible, divider.lowest[divisible] + numbers)
    apart = num_lengths * drawn.ending
    nearly = _match(drawn, apart + drawn.second, apart + longest - drawn.first, tie_breakers)
    left = np.setdiff1d(divisible, drawn.stretch[nearly])
    every = divider.divide_everywhere(left)
    keys = num_lengths * every.ending + turns[every.second]
    exactly = _match(every, keys, keys, tie_breakers)

    first_length = stretches.length.copy()
    for divisions, matched in ((drawn, nearly), (every, exactly)):
        first_length[divisions.stretch[matched]] = divisions.first[matched]
    return np.concatenate([drawn.stretch[nearly], every.stretch[exactly]]), first_length


def _match(
    divisions: _Divisions, keys: NDArray[np.int64], limits: NDArray[np.int64], tie_breakers: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Match divisions of different documents, the second of which has a key from the first one's to its limit.

    One pass in the order of the keys, as in the majority vote of Boyer and Moore (1991): those that wait for a partner
    all belong to one document, so what is left unmatched at the end is that document's surplus.

    Args:
        divisions: The candidates; one of each stretch at most is matched.
        keys: A number for each division, [num_divisions].
        limits: The highest key that each division can be matched with, [num_divisions].
        tie_breakers: Random words, one for each stretch.

    Returns:
        The numbers of the divisions of each couple, [num_couples, 2].
    """
    order = np.lexsort((tie_breakers[divisions.stretch], keys))
    columns = (order, *(column[order] for column in (divisions.stretch, divisions.document, keys, limits)))
    waiting: list[tuple[int, int, int, int]] = []
    taken: set[int] = set()
    couples: list[tuple[int, int]] = []
    for division, stretch, document, key, limit in zip(*(column.tolist() for column in columns), strict=True):
        if stretch in taken:
            continue
        while waiting and (waiting[-1][1] in taken or waiting[-1][2] != document):
            partner, other, _, highest = waiting.pop()
            # Keys ascend: one that has no room for this one has none for a later one, and goes without.
            if other not in taken and key <= highest:
                couples.append((partner, division))
                taken |= {stretch, other}
                break
        else:
            waiting.append((division, stretch, document, limit))
    return np.array(couples, np.int64).reshape(-1, 2)
