"""The signals that ask a run to stop: noted, and obeyed between two steps."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class ReceivedSignal:
    """The number of the stop signal that came, 0 while none did."""

    number: int = 0


@contextlib.contextmanager
def stop_signals() -> Iterator[ReceivedSignal]:
    """Note a signal instead of dying of it; the loop looks between two steps.

    SIGUSR1 is how some clusters' queues say that a job's time is nearly over.
    """
    received = ReceivedSignal()

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a handler)
        received.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
