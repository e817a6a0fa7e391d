"""One piece of work at a time beside the training; its errors come out."""

import threading

import pytest

from hf_minilm.training.background_work import BackgroundWork


def test_work_goes_on_beside_its_caller_and_one_piece_after_the_other() -> None:
    background, may_end, done = BackgroundWork(), threading.Event(), list[int]()

    def first() -> None:
        may_end.wait(10)
        done.append(1)

    background.start(first)
    assert done == []
    threading.Timer(0.2, may_end.set).start()
    background.start(lambda: done.append(2))
    background.wait()
    assert done == [1, 2]


def fail() -> None:
    raise OSError("disk is full")


def test_an_error_comes_out_once_where_the_next_piece_begins_or_at_the_end() -> None:
    background = BackgroundWork()
    background.start(fail)
    with pytest.raises(OSError, match="disk is full"):
        background.start(lambda: None)
    background.wait()
    with pytest.raises(OSError, match="disk is full"), background:
        background.start(fail)


def train_beside_a_failing_save() -> None:
    with BackgroundWork() as background:
        background.start(fail)
        raise KeyError("training")


def test_the_error_of_the_training_itself_comes_first() -> None:
    with pytest.raises(KeyError, match="training"):
        train_beside_a_failing_save()
