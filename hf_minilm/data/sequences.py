"""Which stretches of which documents make a training sequence.

A sequence has one or two segments: `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    @classmethod
    def of_one_segment(cls, segments: Segments) -> "Sequences":
        """Return a sequence for each segment."""
        empty = np.zeros(len(segments.length), np.int64)
        return cls(segments, Segments(empty, empty, empty), np.full(len(empty), IGNORED))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence with its special tokens, two for a single segment and three for a pair."""
        return self.first.length + self.second.length + 2 + (self.second.length > 0)

    def rows(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
        """Iterate over (document, start, length) of the first segment, the same of the second, and the label."""
        parts = (self.first.take(indices), self.second.take(indices))
        columns = [column.tolist() for part in parts for column in (part.document, part.start, part.length)]
        return zip(*columns, self.label[indices].tolist(), strict=True)
