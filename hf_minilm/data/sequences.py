"""Which stretches of which documents make a training sequence, cut at sentence boundaries.

A *unit* is a whole sentence, or a part of one that is too long for a sequence; sequences are made of whole units. A
sequence has one or two segments: `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .store import SENTENCE_START, WORD_START

if TYPE_CHECKING:
    from .store import TokenStore

IGNORED = -100  # the label that torch's cross-entropy passes over


@dataclass(frozen=True, slots=True)
class Segments:
    """Stretches of documents: `length` tokens of `document` from token `start` on, one array entry a stretch."""

    document: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> "Segments":
        """Return the segments at `indices`, in that order."""
        return Segments(self.document[indices], self.start[indices], self.length[indices])


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences of an encoder: a first segment, a second one of length 0 where there is none, and a label.

    Attributes:
        first: Segments that follow [CLS].
        second: Segments that follow the first [SEP].
        label: 0 where the second segment continues the first, 1 where it comes from another document, -100 where
            nothing is asked.
    """

    first: Segments
    second: Segments
    label: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence with its special tokens, two for a single segment and three for a pair."""
        return self.first.length + self.second.length + 2 + (self.second.length > 0)

    def rows(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
        """Iterate over (document, start, length) of the first segment, the same of the second, and the label."""
        parts = (self.first.take(indices), self.second.take(indices))
        columns = [column.tolist() for part in parts for column in (part.document, part.start, part.length)]
        return zip(*columns, self.label[indices].tolist(), strict=True)


@dataclass(frozen=True, slots=True)
class Units:
    """The corpus as units, numbered through all documents.

    Attributes:
        boundaries: Tokens of the corpus before each unit, and its total at the end, [num_units + 1].
        begins_sentence: False for a unit that goes on inside a sentence, [num_units].
        document_offsets: Document d has the units `document_offsets[d]` to `document_offsets[d + 1]`,
            [num_documents + 1].
    """

    boundaries: NDArray[np.int64]
    begins_sentence: NDArray[np.bool_]
    document_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.begins_sentence)

    def segments(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> Segments:
        """Return the segments that hold the units from `firsts` to before `lasts`, each inside one document."""
        document = np.searchsorted(self.document_offsets, firsts, side="right") - 1
        # An empty segment at the corpus's end has no unit of its own.
        document = np.minimum(document, len(self.document_offsets) - 2)
        start = self.boundaries[firsts] - self.boundaries[self.document_offsets[document]]
        return Segments(document, start, self.boundaries[lasts] - self.boundaries[firsts])


def sentence_units(store: "TokenStore", longest: int) -> Units:
    """Divide a corpus into sentences, cutting those of more than `longest` tokens, before a word where one begins."""
    starts_by_document: list[NDArray[np.int64]] = []
    whole_by_document: list[NDArray[np.bool_]] = []
    for document in range(store.num_documents):
        flags = store.flags(document)
        starts = np.flatnonzero(flags & SENTENCE_START)
        if len(starts) and int(np.diff(starts, append=len(flags)).max()) > longest:
            starts = _with_cuts(flags, starts.tolist(), longest)
        starts_by_document.append(starts)
        whole_by_document.append((flags[starts] & SENTENCE_START) != 0)
    num_units = [len(starts) for starts in starts_by_document]
    document_starts = np.cumsum(store.lengths) - store.lengths
    boundaries = np.zeros(sum(num_units) + 1, np.int64)
    boundaries[:-1] = np.concatenate([*starts_by_document, np.zeros(0, np.int64)]) + np.repeat(
        document_starts, num_units
    )
    boundaries[-1] = store.lengths.sum()
    begins_sentence = np.concatenate([*whole_by_document, np.zeros(0, np.bool_)])
    return Units(boundaries, begins_sentence, np.concatenate([[0], np.cumsum(num_units, dtype=np.int64)]))


def _with_cuts(flags: NDArray[np.uint8], starts: list[int], longest: int) -> NDArray[np.int64]:
    """Add cuts inside the sentences of one document, so that no unit is longer than `longest`."""
    cuts: list[int] = []
    for start, stop in zip(starts, [*starts[1:], len(flags)], strict=True):
        cuts.append(start)
        while stop - cuts[-1] > longest:
            window = flags[cuts[-1] + 1 : cuts[-1] + longest + 1]
            words = np.flatnonzero(window & WORD_START)
            cuts.append(cuts[-1] + (int(words[-1]) + 1 if len(words) else longest))
    return np.array(cuts, np.int64)


def single_sequences(units: Units, longest: int) -> Sequences:
    """Fill sequences of one segment with as many whole units of a document as fit into `longest` tokens."""
    boundaries = units.boundaries.tolist()
    offsets = units.document_offsets.tolist()
    firsts: list[int] = []
    for first, stop in pairwise(offsets):
        while first < stop:
            firsts.append(first)
            first = bisect_right(boundaries, boundaries[first] + longest, first + 1, stop + 1) - 1
    starts = np.array([*firsts, len(units)], np.int64)
    empty = np.zeros(len(firsts), np.int64)
    second = Segments(empty, empty, empty)
    return Sequences(units.segments(starts[:-1], starts[1:]), second, np.full(len(firsts), IGNORED))
