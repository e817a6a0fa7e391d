"""Rows filled one at a time, as full as the pieces that are left allow.

A row begins with the longest piece that is left, and takes the set of pieces that fills it best: of those with the
same sum the one with the longest pieces, so that short ones stay for rows that need them. This is the minimum bin
slack of Gupta and Ho (1999), "A new heuristic algorithm for the one-dimensional bin-packing problem", begun as there
with the longest piece; theirs tries the sets one by one, here the sums that can be reached are kept as the bits of
whole numbers. Pieces of one length are alike, so a row's combination is repeated while its pieces last.
"""

import numpy as np
from numpy.typing import NDArray


def fill_rows(descending: NDArray[np.integer], capacity: int) -> tuple[NDArray[np.int64], int]:
    """Give the row of each piece of descending lengths, and the number of rows.

    Args:
        descending: Tokens of each piece, from 1 to `capacity`, the longest first, [num_pieces].
        capacity: Token positions of a row.
    """
    row_of_piece = np.empty(len(descending), np.int64)
    starts = np.flatnonzero(np.diff(descending, prepend=capacity + 1))
    counts = np.diff(starts, append=len(descending)).tolist()
    pieces = _Pieces(descending[starts].tolist(), counts, capacity)
    num_rows = 0
    while (combination := pieces.next_row()) is not None:
        repeats = min(pieces.counts[kind] // number for kind, number in combination.items())
        rows = np.arange(num_rows, num_rows + repeats)
        for kind, number in combination.items():
            row_of_piece[starts[kind] : starts[kind] + repeats * number] = np.repeat(rows, number)
            starts[kind] += repeats * number
        pieces.remove({kind: repeats * number for kind, number in combination.items()})
        num_rows += repeats
    return row_of_piece, num_rows


class _Pieces:
    """The pieces that are left, by kind: all of one length, the longest first.

    Attributes:
        counts: How many pieces of each kind are left, [num_kinds].
    """

    def __init__(self, lengths: list[int], counts: list[int], capacity: int) -> None:
        self._lengths, self.counts, self._capacity = lengths, counts, capacity
        self._longest = 0  # the first kind that has pieces left
        # Bit s of entry k is set when some pieces of the kinds from k on are s long together, up to the capacity.
        self._sums = [1] * (len(lengths) + 1)
        self._update(range(len(lengths) - 1, -1, -1))

    def next_row(self) -> dict[int, int] | None:
        """Return how many pieces of which kinds fill the next row; None when no piece is left."""
        while self._longest < len(self.counts) and not self.counts[self._longest]:
            self._longest += 1
        kind = self._longest
        if kind == len(self.counts):
            return None
        room = self._capacity - self._lengths[kind]
        reached = self._with(kind, self.counts[kind] - 1) & ((2 << room) - 1)
        rest = reached.bit_length() - 1
        combination = {kind: 1}
        while rest:
            number = min(self.counts[kind] - (kind == self._longest), rest // self._lengths[kind])
            while not self._sums[kind + 1] >> (rest - number * self._lengths[kind]) & 1:
                number -= 1
            if number:
                combination[kind] = combination.get(kind, 0) + number
                rest -= number * self._lengths[kind]
            kind += 1
        return combination

    def remove(self, numbers: dict[int, int]) -> None:
        """Take pieces away, so many of each kind."""
        changed = set()
        for kind, number in numbers.items():
            left = self.counts[kind] - number
            if left < self._capacity // self._lengths[kind]:  # more than fill a row make no other sum
                changed.add(kind)
            self.counts[kind] = left
        if changed:
            self._update(range(max(changed), self._longest - 1, -1), last_changed=min(changed))

    def _update(self, kinds: range, *, last_changed: int = 0) -> None:
        """Work the sums out anew, from the last of `kinds` that has changed to the first."""
        for kind in kinds:
            sums = self._with(kind, self.counts[kind])
            if sums == self._sums[kind] and kind < last_changed:
                return
            self._sums[kind] = sums

    def _with(self, kind: int, number: int) -> int:
        """Return the sums of the kinds after `kind` and up to `number` pieces of it."""
        sums, length = self._sums[kind + 1], self._lengths[kind]
        number = min(number, self._capacity // length)
        step = 1
        while number:
            step = min(step, number)
            sums |= sums << step * length
            number, step = number - step, 2 * step
        return sums & ((2 << self._capacity) - 1)
