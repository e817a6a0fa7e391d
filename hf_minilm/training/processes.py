"""The processes of a run: how they agree, wait for one another, and say which of them is missing.

What they tell each other here are a few numbers, which travel from memory to memory over gloo even where gradients
travel between GPUs: no process waits for its GPU in order to say that it was asked to stop.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch.distributed import distributed_c10d

from ..one_line import one_line

FIRST_STEP_TIMEOUT = timedelta(minutes=10)
"""How long a process may be silent before its first step is done, as it compiles the layers then."""

# One process tokenises a corpus, or writes the report, while the others wait.
_LONGEST_WAIT = timedelta(hours=24)
_BEFORE_NCCL = timedelta(seconds=60)
_ROLL_CALL_SECONDS = 1.0
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class ProcessLostError(OSError):
    """Another process of the run died, froze, or can no longer be reached."""


class Processes:
    """The processes that train together; one alone agrees with itself at once.

    Call it on every process, after they have joined.

    Attributes:
        index: This one's number, from 0; 0 is the main one, which writes.
        number: How many there are.
    """

    def __init__(self) -> None:
        together = torch.distributed.is_initialized()
        self.index = torch.distributed.get_rank() if together else 0
        self.number = torch.distributed.get_world_size() if together else 1
        self._prompt: Any = None
        self._patient: Any = None
        self._watched: list[Any] = []
        if self.number > 1:
            try:
                self._prompt = torch.distributed.new_group(backend="gloo", timeout=FIRST_STEP_TIMEOUT)
                self._patient = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
            except RuntimeError as error:
                raise ProcessLostError(
                    f"processes of the run ({self.number}) must reach one another over gloo; on several machines name "
                    "the network's interface, as GLOO_SOCKET_IFNAME=eth0, where a machine's own name leads to itself "
                    f"({one_line(error)})"
                ) from error
            self._watched += [self._prompt, torch.distributed.group.WORLD]

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def watch(self, groups: Sequence[torch.distributed.ProcessGroup]) -> None:
        """Give up processes that are silent in further groups too; before the first step is done, later than after."""
        self._watched += groups
        self._limit(groups, FIRST_STEP_TIMEOUT)

    def limit_silence(self, seconds: float) -> None:
        """Say how long a process may be silent from now on, before the others give it up."""
        self._limit(self._watched, timedelta(seconds=seconds))

    def _limit(self, groups: Sequence[torch.distributed.ProcessGroup], longest: timedelta) -> None:
        for group in groups:
            # NCCL ends the process where time is up: gloo's groups, which can say who is missing, come before it.
            later = _BEFORE_NCCL if torch.distributed.get_backend(group) == "nccl" else timedelta(0)
            distributed_c10d._set_pg_timeout(longest + later, group)

    def gather(self, numbers: Sequence[float]) -> torch.Tensor:
        """Give all processes everyone's numbers, as many each, as float64 [processes, numbers]."""
        own = torch.tensor(list(numbers), dtype=torch.float64)
        if self.number == 1:
            return own[None]
        everyones = [torch.empty_like(own) for _ in range(self.number)]
        torch.distributed.all_gather(everyones, own, group=self._prompt)
        return torch.stack(everyones)

    def gather_rows(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Give all processes everyone's rows, float64 [rows, width], of which each may have another number."""
        if self.number == 1:
            return [rows]
        counts = self.gather([len(rows)])[:, 0].long().tolist()
        padded = torch.zeros(max(counts), rows.shape[1], dtype=torch.float64)
        padded[: len(rows)] = rows
        everyones = [torch.empty_like(padded) for _ in range(self.number)]
        torch.distributed.all_gather(everyones, padded, group=self._prompt)
        return [theirs[:count] for theirs, count in zip(everyones, counts, strict=True)]

    def count_like(self, numbers: Sequence[float]) -> int:
        """Count the processes that give these very numbers, this one included."""
        return int((self.gather(numbers) == torch.tensor(list(numbers), dtype=torch.float64)).all(dim=1).sum())

    def refuse_unlike(self, what: str, number: int, *, advice: str) -> None:
        """Make sure that all processes have found the same number, each by itself.

        Raises:
            ValueError: If they have not, with everyone's.
        """
        everyones = self.gather([number])[:, 0].tolist()
        if len(set(everyones)) > 1:
            listed = ", ".join(f"{each:.0f} on process {index}" for index, each in enumerate(everyones))
            raise ValueError(f"{what} ({listed}) must be the same on all processes; {advice}.")

    def wait(self) -> None:
        """Wait until all have come here, for hours if need be."""
        if self.number > 1:
            torch.distributed.barrier(self._patient)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process go through a block before the others do, for as long as it takes.

        Then the first one of each other machine goes, whose files the rest of that machine may share, and then all.

        Raises:
            ProcessLostError: On the others, if the main one failed in the block; it says itself why.
        """
        is_first_here = self.is_main or os.environ.get("LOCAL_RANK", "0") == "0"
        if not self.is_main and not self._told_by_main():
            raise ProcessLostError("process 0 must prepare the run before the others, and could not; see its message.")
        if not is_first_here:
            self.wait()
        is_through = False
        try:
            yield
            is_through = True
        finally:
            if self.is_main:
                self._told_by_main(is_through)
        if is_first_here:
            self.wait()

    def _told_by_main(self, value: bool = True) -> bool:
        """Give all processes what the main one says here, however long it takes to come here."""
        if self.number == 1:
            return value
        told = torch.tensor([value])
        torch.distributed.broadcast(told, src=0, group=self._patient)
        return bool(told)

    @contextlib.contextmanager
    def naming_the_missing(self) -> Iterator[None]:
        """Turn a broken or timed-out exchange into an error that says which processes do not answer.

        Raises:
            ProcessLostError: If an exchange inside failed.
        """
        try:
            yield
        except RuntimeError as error:
            if self.number == 1 or not _is_of_an_exchange(error):
                raise
            raise ProcessLostError(
                f"processes of the run ({self.number}) must all answer, and {self._missing()} did not; "
                "start all again with the same command: the run goes on from its last checkpoint. Where one was only "
                "slow, as a disk may make it, set training.timeout higher."
            ) from error

    def _missing(self) -> str:
        """Call the roll: who is alive meets the same error now, and says so in the launcher's store."""
        present: set[int] = set()
        # The store may itself be in a process that froze.
        caller = threading.Thread(target=self._call_roll, args=(present,), daemon=True)
        caller.start()
        caller.join(_ROLL_CALL_SECONDS + 0.5)
        if self.index not in present:
            return "process 0 or the launcher"
        missing = sorted(set(range(self.number)) - present)
        return f"process {', '.join(map(str, missing))}" if missing else "one, for a while,"

    def _call_roll(self, present: set[int]) -> None:
        names = {number: f"hf_minilm/present/{number}" for number in range(self.number)}
        with contextlib.suppress(RuntimeError):
            store = distributed_c10d._get_default_store()
            store.set(names[self.index], "yes")
            deadline = time.monotonic() + _ROLL_CALL_SECONDS
            while len(present) < self.number and time.monotonic() < deadline:
                present.update(number for number, name in names.items() if store.check([name]))
                time.sleep(0.05)


def _is_of_an_exchange(error: RuntimeError) -> bool:
    """Tell an error of the network from one of this process's own; gloo's have no class."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def end_with_launcher() -> None:
    """Ask the kernel to stop this process when its launcher dies, so that it does not write on as an orphan.

    It gets SIGTERM, as from a user, and saves. Nothing happens without a launcher, or where there is no such call.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _ask_for_signal_of_parents_death(signal.SIGTERM)


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process, which another one forked, when that dies, where there is such a call.

    Args:
        parent: The number of the other one, which may be dead already.
    """
    _ask_for_signal_of_parents_death(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _ask_for_signal_of_parents_death(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, number)


def end_process(code: int) -> None:
    """Leave the interpreter at once after several processes: gloo's threads sometimes abort its usual end."""
    if not torch.distributed.is_initialized():
        return
    if code == 0:  # otherwise others may be gone, for whom this would wait
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
