"""Bounds on what a door may take: processor time, and memory above that of the process before."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def kilobytes(name: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.fixture
def bounded() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """Assert that a block stays within processor seconds (the machine may be busy) and megabytes."""

    @contextlib.contextmanager
    def bound(*, seconds: float, megabytes: float) -> Iterator[None]:
        measures_memory = CLEAR.exists()
        if measures_memory:
            CLEAR.write_text("5", encoding="ascii")  # the peak begins anew
        before, begin = kilobytes("VmRSS") if measures_memory else 0, time.process_time()
        yield
        assert time.process_time() - begin < seconds
        if measures_memory:
            assert (kilobytes("VmHWM") - before) / 1024 < megabytes

    return bound
