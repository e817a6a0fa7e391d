"""One thread a process, as the models are so small that threads cost more than they bring; and no test's leavings."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# MKL's products differ in the last bit from one process to another on some processors unless it is told not to.
os.environ.setdefault("MKL_CBWR", "AUTO")


sys.path.insert(0, str(Path(__file__).parent))  # what several folders of tests share lies here


@pytest.fixture(autouse=True)
def _accelerate_begins_anew() -> Iterator[None]:
    """Forget the process-wide state that a Trainer or a run leaves, which another precision would contradict."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)
