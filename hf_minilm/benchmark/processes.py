"""Contestants' processes, as the bench sees them from outside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from .machine import process_environment
from .work import Work, write_work
from .working_folder import WorkingFolder

LONGEST_HOURS = 6.0
"""What a contestant may take, which measures for minutes; one that hangs would hold up all others for ever."""


@dataclass(frozen=True)
class Outcome:
    """What became of a contestant: its figures, or the last line of what it died of."""

    figures: dict[str, Any] | None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the figures, or the error."""
        return {"error": self.error} if self.figures is None else self.figures


def contestant_command(work: Work, folder: WorkingFolder) -> list[str]:
    """Write the command line of a contestant's process."""
    return [sys.executable, "-m", "hf_minilm.benchmark.contestant", str(folder.path), write_work(work)]


def carry_out(work: Work, folder: WorkingFolder) -> Outcome:
    """Have some work done in a process of its own, which ends before this does, whatever happens."""
    process = subprocess.Popen(
        contestant_command(work, folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=process_environment(),
        # A group of its own, so that the workers of a data loader end with it.
        start_new_session=True,
    )
    try:
        with _ends_on_termination():
            printed, complaints = process.communicate(timeout=3_600 * LONGEST_HOURS)
    except subprocess.TimeoutExpired:
        return Outcome(None, f"not done in {LONGEST_HOURS:g} hours")
    finally:
        _end(process)
    if process.returncode:
        return Outcome(None, _last_words(process.returncode, complaints))
    try:
        return Outcome(json.loads(printed.splitlines()[-1]))
    except (IndexError, ValueError):
        return Outcome(None, "no figures were printed")


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill what is left of a process and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nothing is left, which macOS calls not permitted
    finally:
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _last_words(code: int, complaints: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        reason = "; the machine may be out of memory" if name == "SIGKILL" else ""
        return f"ended by {name}{reason}"
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"


@contextmanager
def _ends_on_termination() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the child is ended too."""

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a handler)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
