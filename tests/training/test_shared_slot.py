"""What a forked process puts into the slot is what is taken out of it, in order and whole."""

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hf_minilm.training import shared_slot
from hf_minilm.training.shared_slot import SharedSlot

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def values() -> Iterator[Any]:
    """Objects with arrays of several types, shared and empty ones, and without any."""
    draw = np.random.default_rng(0)
    for number in range(6):
        ids = draw.integers(2**40, size=(number, 300))
        yield {"ids": ids, "again": ids, "bounds": np.arange(number, dtype=np.int32), "none": np.empty(0), "plain": "ñ"}
    yield ["no", "arrays"]
    yield np.asfortranarray(draw.random((40, 50)))
    yield draw.random((40, 50))[::2, ::3]


@pytest.fixture
def taken_from() -> Iterator[Callable[[int], list[Any]]]:
    """Take everything that another process gives."""
    context = multiprocessing.get_context("fork")
    processes = []

    def give(slot: SharedSlot) -> None:
        for value in values():
            slot.put(value)

    def take(number: int) -> list[Any]:
        slot = SharedSlot(context)
        processes.append(context.Process(target=give, args=(slot,)))
        processes[-1].start()
        slot.giving.close()
        return [slot.take() for _ in range(number)]

    yield take
    for process in processes:
        process.join(10)
        assert process.exitcode == 0


@pytest.mark.parametrize("size", [2**26, 2**12], ids=["all fits", "most goes through the pipe"])
def test_objects_come_whole_and_in_order(taken_from, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shared_slot, "_BYTES", size)
    expected = list(values())
    for given, found in zip(expected, taken_from(len(expected)), strict=True):
        np.testing.assert_equal(found, given)


def test_what_was_taken_stays_as_it_is_and_can_be_written_to(taken_from) -> None:
    taken, expected = taken_from(9), list(values())
    taken[4]["ids"][:] = 7
    assert set(taken[4]["ids"].flatten().tolist()) == {7}
    np.testing.assert_equal(taken[3], expected[3])
    np.testing.assert_equal(taken[5], expected[5])


def test_a_process_that_ends_is_noticed_by_who_waits(taken_from) -> None:
    with pytest.raises((OSError, EOFError), match=r"^$|reset by peer"):
        taken_from(10)
