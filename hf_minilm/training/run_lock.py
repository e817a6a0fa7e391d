"""One writer a run folder: a lock that the kernel gives back when its holder dies, however it dies."""

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

LOCK_FILE = "run.lock"

_held: set[int] = set()


def _close_in_child() -> None:
    """A forked child, such as a data worker, shares the lock: an orphan of a killed run would hold it on."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


class RunLockedError(OSError):
    """Another process writes to the run folder."""


class RunLock:
    """The right to write to a run folder, taken with `flock` on `run.lock`; a context manager.

    The file says who holds the lock (process, host, boot) and stays when the lock is free: removing it would let two
    processes lock two files of the same name.

    Args:
        folder: The run folder; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or fail at once.

        Raises:
            RunLockedError: If another process holds it, or this one holds it already; the error says which.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _describe_holder(descriptor)
            os.close(descriptor)
            raise RunLockedError(
                f"run folder ({self.path.parent}) must have one writer, and {holder} is writing to it; "
                "wait for it, stop it, or choose another output.folder."
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(_own_identity()) + "\n").encode(), 0)
        _held.add(descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _own_identity() -> dict[str, str | int]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot": boot.read_text(encoding="ascii").strip() if boot.is_file() else "",
    }


def _describe_holder(descriptor: int) -> str:
    """Name the holder; it may be between taking the lock and writing its name."""
    try:
        identity = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {identity['pid']} on {identity['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
