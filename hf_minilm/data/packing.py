"""Pieces of text into rows of a fixed length, with next to nothing left empty.

Best-fit decreasing: the pieces are taken from the longest to the shortest, and each goes into the fullest row that
still has room for it. Pieces of one length are placed together, so that the work grows with the number of distinct
lengths rather than with the number of pieces.

Where a row holds a few pieces of similar lengths that may be far from the best: three of 80 leave a row of 256 16
short, and two of 80 with two of 48 fill it. So where best fit takes 1 % more rows than anything could, rows are also
filled one at a time (see `filling`), and the packing with fewer rows is kept. The built-in stories in rows of 256
then waste 2.1 % instead of 4.3 %.

References:
    Krell et al. 2021, "Efficient sequence packing without cross-contamination" (arXiv 2107.02027).
    Ding et al. 2024, "Fewer truncations improve language modeling" (arXiv 2404.10830).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .filling import fill_rows

# With more different lengths than this best fit finds one for nearly every gap, and filling would take seconds.
_MOST_LENGTHS_TO_FILL = 2048


@dataclass(frozen=True, slots=True)
class Packing:
    """Which pieces stand in which row.

    Attributes:
        pieces: The numbers of the pieces, row after row, [num_pieces].
        offsets: Row r holds `pieces[offsets[r]:offsets[r + 1]]`, [num_rows + 1].
        capacity: Token positions of a row.
        num_tokens: Token positions in use, over all rows.
    """

    pieces: NDArray[np.int64]
    offsets: NDArray[np.int64]
    capacity: int
    num_tokens: int

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.offsets) - 1

    @property
    def wasted_share(self) -> float:
        """The share of all token positions that stay empty, from 0 to 1."""
        return 1.0 - self.num_tokens / (self.num_rows * self.capacity) if self.num_rows else 0.0

    def row(self, row: int) -> NDArray[np.int64]:
        """Return the numbers of the pieces in one row, the longest first."""
        return self.pieces[self.offsets[row] : self.offsets[row + 1]]


class _OpenRows:
    """Rows that still have room, found by how much room they have."""

    def __init__(self) -> None:
        self._rows_by_space: dict[int, list[NDArray[np.int64]]] = {}
        # Bit s is set when some row has exactly s positions free: the best fit is then one shift away.
        self._spaces = 0

    def put(self, rows: NDArray[np.int64], *, space: int) -> None:
        """Keep `rows`, which all have `space` positions free; a full row is closed."""
        if len(rows) and space:
            self._rows_by_space.setdefault(space, []).append(rows)
            self._spaces |= 1 << space

    def take(self, length: int) -> tuple[NDArray[np.int64], int] | None:
        """Take some rows out whose free space is the smallest that holds `length`, and say how much that is."""
        fitting = self._spaces >> length
        if not fitting:
            return None
        space = length + (fitting & -fitting).bit_length() - 1
        stack = self._rows_by_space[space]
        rows = stack.pop()
        if not stack:
            self._spaces ^= 1 << space
        return rows, space


def pack(lengths: NDArray[np.integer], capacity: int, *, tie_breakers: NDArray[np.uint64] | None = None) -> Packing:
    """Pack pieces into as few rows as best-fit decreasing needs, or fewer; every piece stands in exactly one row.

    Args:
        lengths: Tokens of each piece, from 1 to `capacity`, [num_pieces].
        capacity: Token positions of a row.
        tie_breakers: Random words that order pieces of equal length, so that neighbours in the corpus do not share
            a row; without them the corpus order decides. [num_pieces]

    Raises:
        ValueError: If a piece is empty or does not fit into a row.
    """
    if capacity < 1:
        raise ValueError(f"capacity ({capacity}) must be at least 1; give the token positions of a row.")
    if len(lengths) == 0:
        return Packing(np.zeros(0, np.int64), np.zeros(1, np.int64), capacity, 0)
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1 or longest > capacity:
        raise ValueError(f"lengths ({shortest} to {longest}) must be from 1 to {capacity}; cut longer pieces first.")
    negated = -lengths.astype(np.int64)
    descending = np.lexsort((negated,) if tie_breakers is None else (tie_breakers, negated))
    row_of_piece, num_rows = _fewer_rows(lengths[descending], capacity)
    pieces = descending[np.argsort(row_of_piece, kind="stable")]
    offsets = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(row_of_piece, minlength=num_rows), out=offsets[1:])
    return Packing(pieces, offsets, capacity, int(lengths.sum(dtype=np.int64)))


def _fewer_rows(descending: NDArray[np.integer], capacity: int) -> tuple[NDArray[np.int64], int]:
    """Give the row of each piece of descending lengths, and the number of rows, by the better of two ways."""
    best_fit = _best_fit(descending, capacity)
    # No two pieces of more than half a row share one.
    fewest = max(-(-int(descending.sum(dtype=np.int64)) // capacity), int((descending > capacity // 2).sum()))
    if best_fit[1] <= 1.01 * fewest or len(np.unique(descending)) > _MOST_LENGTHS_TO_FILL:
        return best_fit
    filled = fill_rows(descending, capacity)
    return filled if filled[1] < best_fit[1] else best_fit


def _best_fit(descending: NDArray[np.integer], capacity: int) -> tuple[NDArray[np.int64], int]:
    """Do as `_fewer_rows`, by best-fit decreasing."""
    row_of_piece = np.empty(len(descending), np.int64)
    starts = np.flatnonzero(np.diff(descending, prepend=capacity + 1))
    open_rows, num_rows = _OpenRows(), 0
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(descending)], strict=True):
        length = int(descending[start])
        while start < stop:
            taken = open_rows.take(length)
            if taken is None:
                num_new = -(-(stop - start) // (capacity // length))
                taken = np.arange(num_rows, num_rows + num_new), capacity
                num_rows += num_new
            rows, space = taken
            placed = _place(open_rows, rows, space=space, length=length, count=stop - start)
            row_of_piece[start : start + len(placed)] = placed
            start += len(placed)
    return row_of_piece, num_rows


def _place(open_rows: _OpenRows, rows: NDArray[np.int64], *, space: int, length: int, count: int) -> NDArray[np.int64]:
    """Place up to `count` pieces of one length into `rows`, one row after another, and give the row of each piece."""
    # A row that has taken one piece is fuller than its neighbours, hence the best fit until it has no more room.
    pieces_a_row = space // length
    num_filled, rest = divmod(min(count, len(rows) * pieces_a_row), pieces_a_row)
    open_rows.put(rows[:num_filled], space=space - pieces_a_row * length)
    num_used = num_filled + (rest > 0)
    open_rows.put(rows[num_filled:num_used], space=space - rest * length)
    open_rows.put(rows[num_used:], space=space)
    return np.repeat(rows[:num_used], pieces_a_row)[: num_filled * pieces_a_row + rest]
