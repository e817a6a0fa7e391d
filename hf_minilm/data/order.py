"""Which rows make up a step, as a pure function of (seed, step).

All epochs' rows stand in one endless line, each epoch shuffled on its own; step s is the s-th run of `rows_per_step`
of them. There is no state to save but how many rows were seen, and nothing depends on how many processes share the
work: a run that stops at any step goes on with exactly the rows that were due, on any number of processes.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .draws import Purpose, random_bits

Item = TypeVar("Item")


class RowKey(NamedTuple):
    """The name of a row: an epoch, and the row's number in that epoch's packing; both count from 0."""

    epoch: int
    row: int


class RowOrder:
    """The order in which training sees rows: every row exactly once an epoch, shuffled anew each epoch.

    A step may take its last rows from one epoch and its first from the next; no row is dropped or repeated to make
    the numbers even.

    Args:
        rows_in_epoch: How many rows an epoch has; epochs may differ. Called once an epoch, in order, up to the
            epoch that a step needs.
        rows_per_step: Rows of one step, over all processes and all micro-batches.
        seed: The run's seed.
        behind: How many steps were made before, and of how many rows in all. A run whose steps have changed their size
            goes on in the line where it stands.
    """

    def __init__(
        self, rows_in_epoch: Callable[[int], int], rows_per_step: int, *, seed: int, behind: tuple[int, int] = (0, 0)
    ) -> None:
        if rows_per_step < 1:
            raise ValueError(f"rows_per_step ({rows_per_step}) must be at least 1; give the rows of one step.")
        self.rows_per_step = rows_per_step
        self.seed = seed
        self._steps_behind, self._rows_behind = behind
        self._rows_in_epoch = rows_in_epoch
        self._epoch_starts = [0]
        self._permutations: dict[int, NDArray[np.int64]] = {}

    def rows(self, step: int) -> list[RowKey]:
        """Return the rows of one step, `rows_per_step` of them; steps count from 0."""
        if step < self._steps_behind:
            raise ValueError(f"step ({step}) must be at least {self._steps_behind}; earlier ones lie behind.")
        slot = self._rows_behind + (step - self._steps_behind) * self.rows_per_step
        stop = slot + self.rows_per_step
        keys: list[RowKey] = []
        while slot < stop:
            epoch = self._epoch_at(slot)
            start = self._epoch_starts[epoch]
            rows = self._permutation(epoch)[slot - start : stop - start]
            keys.extend(RowKey(epoch, row) for row in rows.tolist())
            slot += len(rows)
        return keys

    def num_steps(self, num_epochs: int) -> int:
        """Return how many steps it takes until every row of the first `num_epochs` epochs has been seen."""
        while len(self._epoch_starts) <= num_epochs:
            self._count_next_epoch()
        return -(-self._epoch_starts[num_epochs] // self.rows_per_step)

    def _epoch_at(self, slot: int) -> int:
        while self._epoch_starts[-1] <= slot:
            self._count_next_epoch()
        return bisect_right(self._epoch_starts, slot) - 1

    def _count_next_epoch(self) -> None:
        epoch = len(self._epoch_starts) - 1
        num_rows = self._rows_in_epoch(epoch)
        if num_rows < 1:
            raise ValueError(f"rows of epoch {epoch} ({num_rows}) must be at least 1; give a corpus with some text.")
        self._epoch_starts.append(self._epoch_starts[-1] + num_rows)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._permutations:
            num_rows = self._epoch_starts[epoch + 1] - self._epoch_starts[epoch]
            bits = random_bits(self.seed, Purpose.ORDER, counter=(0, epoch, 0), size=num_rows)
            # Two are kept, for the step that straddles two epochs.
            self._permutations = {key: self._permutations[key] for key in list(self._permutations)[-1:]}
            self._permutations[epoch] = np.argsort(bits, kind="stable")
        return self._permutations[epoch]


def share(rows: Sequence[Item], process: int, *, num_processes: int) -> list[Item]:
    """Return the part of a step's rows, or of what else is shared out, that one process works on.

    The parts are contiguous, differ by at most one row in size, and together are the step's rows, each once; with
    fewer rows than processes some parts are empty.

    Args:
        rows: The rows of a step.
        process: Which process, from 0 to `num_processes - 1`.
        num_processes: How many processes there are.

    Raises:
        ValueError: If `process` is out of range.
    """
    if not 0 <= process < num_processes:
        raise ValueError(f"process ({process}) must be from 0 to num_processes - 1 ({num_processes - 1}); check ranks.")
    start, stop = process * len(rows) // num_processes, (process + 1) * len(rows) // num_processes
    return list(rows[start:stop])
