"""The batches of the steps to come, made by other processes while a GPU computes.

A batch is a pure function of the step, so that whoever makes it makes the same one. A GPU trains a small model on a
batch in less time than it takes to make it, and beside what a step launches there is little time left for it. Where a
CPU computes, other processes would only take its cores.

The processes take the steps in turn, and each waits with its own, in memory that it shares with the receiver, until it
is asked for. torch's way, a file for each tensor, runs out of files where a step has many micro-batches.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from types import TracebackType
from typing import Any, Self

import torch

from .gradient import Part, with_batches
from .prepared_batch import each_tensor
from .processes import end_with_parent
from .shared_slot import SharedSlot

MOST_PROCESSES = 4

MakeParts = Callable[[int], list[Part]]


class BatchesAhead:
    """The parts of one step after the other; a context manager, which ends the processes.

    Args:
        make: Makes the parts of a step.
        first_step: The step to begin with.
        processes: How many make them beforehand, each one step ahead; 0: they are made when they are asked for.
    """

    def __init__(self, make: MakeParts, *, first_step: int, processes: int) -> None:
        self.make, self.step, self.processes = make, first_step, processes
        self._makers: list[tuple[ForkProcess, SharedSlot]] = []

    def __enter__(self) -> Self:
        """Start the processes."""
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _start(self) -> None:
        # As forks: nothing is to be copied, the mapped files least of all.
        context = multiprocessing.get_context("fork")
        for first in range(self.step, self.step + self.processes):
            slot, steps = SharedSlot(context), itertools.count(first, self.processes)
            others = [*(other.receiving for _, other in self._makers), slot.receiving]
            process = context.Process(target=_make_steps, args=(self.make, steps, slot, others, os.getpid()))
            with _blocked_stop_signals(), warnings.catch_warnings():
                # Python warns of forks beside threads, whose locks stay locked there; to make batches needs none.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            slot.giving.close()  # so that the pipe ends with the process
            self._makers.append((process, slot))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes."""
        for process, slot in self._makers:
            process.kill()
            process.join()
            slot.receiving.close()
        self._makers = []

    def next(self) -> list[Part]:
        """Give the parts of the next step.

        Raises:
            ChildProcessError: If a process that makes them has died.
            Exception: That of making them.
        """
        parts = self._received() if self._makers else self.make(self.step)
        self.step += 1
        return parts

    def _received(self) -> list[Part]:
        _, slot = self._makers[0]
        try:
            received = slot.take()
        except (EOFError, OSError) as error:
            raise ChildProcessError(
                f"training.batch_processes ({self.processes}) must all live, and one of them died, as where memory is "
                "short; start again with the same command, and with fewer if it is."
            ) from error
        if isinstance(received, Exception):
            raise received
        self._makers.append(self._makers.pop(0))
        return with_batches(received, lambda batch: each_tensor(batch, torch.from_numpy))


@contextlib.contextmanager
def _blocked_stop_signals() -> Iterator[None]:
    """Have processes that are started here never see the signals by which a run, which gets the same, stops them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_steps(
    make: MakeParts, steps: Iterable[int], slot: SharedSlot, others: Sequence[Connection], parent: int
) -> None:
    """Make steps in a process of its own, one after the other, until it is killed or nobody can receive them."""
    for end in others:
        end.close()  # so that the pipe breaks where the parent is gone
    end_with_parent(parent)
    torch.set_num_threads(1)  # those of the parent are not here
    for step in steps:
        made: Any
        try:
            made = with_batches(make(step), lambda batch: each_tensor(batch, torch.Tensor.numpy))
        except Exception as error:  # raised where it is received
            made = error
        try:
            slot.put(made)
        except (OSError, EOFError):
            return


def resolve_batch_processes(wish: int | None, device: torch.device, *, num_sharing: int) -> int:
    """Resolve None: none on a CPU, and on a GPU as many as the cores of this process's share allow beside it.

    Args:
        wish: The recipe's.
        device: The process's.
        num_sharing: Processes of the run that may use the same cores, this one included; see `usable_cores`.
    """
    if wish is not None:
        return wish
    if device.type == "cpu" or os.name != "posix":
        return 0
    return max(0, min(MOST_PROCESSES, len(usable_cores()) // num_sharing - 1))


def usable_cores() -> list[int]:
    """List the cores that this process may use, where the system says; a launcher may have bound it to its own."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
