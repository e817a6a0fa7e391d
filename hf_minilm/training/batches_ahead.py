"""The batches of the steps to come, made by other processes while a GPU computes.

A batch is a pure function of the step, so that whoever makes it makes the same one. A GPU trains a small model on a
batch in less time than it takes to make it, and beside what a step launches there is little time left for it. Where a
CPU computes, other processes would only take its cores.
"""

import contextlib
import itertools
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, Dataset

from .gradient import Part

MOST_PROCESSES = 4
_STEPS_AHEAD = 2  # of each process, and received
_SECONDS_TO_END = 0.05
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

MakeParts = Callable[[int], list[Part]]


class BatchesAhead:
    """The parts of one step after the other; a context manager, which ends the processes.

    A thread receives what the processes have made: that takes longer than a small model's step on a fast GPU.

    Args:
        make: Makes the parts of a step.
        first_step: The step to begin with.
        processes: How many make them beforehand; 0: they are made when they are asked for.
    """

    def __init__(self, make: MakeParts, *, first_step: int, processes: int) -> None:
        self.make, self.step, self.processes = make, first_step, processes
        self._received: queue.Queue[list[Part] | Exception] = queue.Queue(maxsize=_STEPS_AHEAD)
        self._ends = threading.Event()
        self._receiver: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start the processes."""
        if self.processes:
            steps = _made_elsewhere(self.make, first_step=self.step, processes=self.processes)
            self._receiver = threading.Thread(target=self._receive, args=(steps,), name="hf_minilm batches")
            self._receiver.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes."""
        self._ends.set()
        while self._receiver is not None and self._receiver.is_alive():
            with contextlib.suppress(queue.Empty):
                self._received.get(timeout=_SECONDS_TO_END)  # the thread may wait for room

    def next(self) -> list[Part]:
        """Give the parts of the next step.

        Raises:
            ChildProcessError: If a process that makes them has died.
            Exception: That of making them.
        """
        if self._receiver is None:
            parts: list[Part] | Exception = self.make(self.step)
        else:
            parts = self._received.get()
        if isinstance(parts, Exception):
            raise parts
        self.step += 1
        return parts

    def _receive(self, steps: Iterator[list[Part] | Exception]) -> None:
        """Receive steps, or the error that there will be no more, until the run ends."""
        received: list[Part] | Exception
        while not self._ends.is_set():
            try:
                received = next(steps)
            except Exception as error:  # not of making a step, which is received like one
                received = ChildProcessError(
                    f"training.batch_processes ({self.processes}) must all live, and one of them died, as where memory "
                    "is short; start again with the same command, and with fewer if it is."
                )
                received.__cause__ = error
            self._received.put(received)
            if isinstance(received, Exception):
                return


def _made_elsewhere(make: MakeParts, *, first_step: int, processes: int) -> Iterator[list[Part] | Exception]:
    """Start processes that make steps; they end when nobody holds the iterator any more."""
    loader: DataLoader[Any] = DataLoader(
        _BySteps(make),
        batch_size=None,
        sampler=itertools.count(first_step),
        num_workers=processes,
        prefetch_factor=_STEPS_AHEAD,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # from which it would draw otherwise is the run's own
        multiprocessing_context="fork",  # nothing is to be copied, the mapped files least of all
    )
    with _blocked_stop_signals():
        before = signal.getsignal(signal.SIGCHLD)
        steps = iter(loader)
        # DataLoader's handler would raise wherever this process is; that one has died is seen where it is waited for.
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return steps


class _BySteps(Dataset[Any]):
    """What is made of a step's number, or the error of it: DataLoader would change what that says."""

    def __init__(self, make: MakeParts) -> None:
        self.make = make

    def __getitem__(self, step: int) -> list[Part] | Exception:
        try:
            return self.make(step)
        except Exception as error:  # raised where it is received
            return error


def _as_it_is(parts: Any) -> Any:
    return parts


@contextlib.contextmanager
def _blocked_stop_signals() -> Iterator[None]:
    """Have processes that are started here never see the signals by which a run, which gets the same, stops them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def resolve_batch_processes(wish: int | None, device: torch.device, *, num_processes: int) -> int:
    """Resolve None: none on a CPU, and on a GPU as many as the cores of this process's share allow beside it.

    Args:
        wish: The recipe's.
        device: The process's.
        num_processes: Processes of the run, taken to be on this machine.
    """
    if wish is not None:
        return wish
    if device.type == "cpu" or os.name != "posix":
        return 0
    return max(0, min(MOST_PROCESSES, (os.cpu_count() or 1) // num_processes - 1))
