"""What is counted in a batch, and which steps a stopwatch measures."""

import time

import pytest
import torch

from hf_minilm.benchmark.flops import MatrixWork
from hf_minilm.benchmark.stopwatch import Stopwatch, count_batch

CPU = torch.device("cpu")
WORK = MatrixWork(layers=10, head=100, order=0, width=2, windows=(None,))
BATCH = {
    "input_ids": torch.tensor([[7, 8, 9, 0], [7, 0, 0, 0]]),
    "labels": torch.tensor([[-100, 8, -100, -100], [7, -100, -100, -100]]),
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return Clock


def test_padding_is_the_padding_token_where_there_is_no_mask():
    counts = count_batch(BATCH, WORK, pad_token_id=0)
    assert (int(counts.tokens), int(counts.predicted), counts.positions) == (4, 2, 8)


def test_padding_is_what_the_mask_says_even_where_a_masked_token_looks_like_padding():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert int(count_batch({**BATCH, "attention_mask": mask}, WORK, pad_token_id=0).tokens) == 6


def test_labelled_sequences_are_counted_one_a_row_and_packed():
    for label in (torch.tensor([0, 1]), torch.tensor([[0, -100, 1, -100], [-100, -100, -100, -100]])):
        assert int(count_batch({**BATCH, "next_sentence_label": label}, WORK, pad_token_id=0).sequences) == 2


def test_a_token_looks_at_its_own_sequence_and_no_padding_and_no_further_than_a_layers_window():
    work = MatrixWork(layers=10, head=100, order=0, width=2, windows=(None, 2, None))
    ids = torch.tensor([[7, 8, 9, 7, 8, 0], [7, 7, 7, 7, 7, 7]])
    rows = {"input_ids": ids, "labels": ids}
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 0]])
    for given, lengths in (({}, [5, 6]), ({"position_ids": positions}, [3, 2, 4, 1, 1])):
        expected = sum(2 * length * length + length * min(length, 2) for length in lengths)
        assert int(count_batch({**rows, **given}, work, pad_token_id=0).looks) == expected
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    assert int(count_batch({**rows, "attention_mask": mask}, work, pad_token_id=0).looks) == 2 * (2 * 25 + 10)


def measure(stopwatch, clock, *, waits, works):
    for wait, work in zip(waits, works, strict=True):
        clock.now += wait
        stopwatch.batch_arrives(BATCH)
        clock.now += work
        stopwatch.step_ends()


def test_only_the_steps_after_the_warm_up_are_measured(clock):
    stopwatch = Stopwatch(CPU, WORK, warmup_steps=2, steps=3, pad_token_id=0)
    measure(stopwatch, clock, waits=[9, 9, 1, 1, 1, 9], works=[9, 9, 1, 3, 5, 9])
    figures = stopwatch.figures()
    assert (figures.steps, figures.tokens) == (3, 12)
    assert figures.tokens_per_second == pytest.approx(12 / 12)
    assert figures.step_seconds == pytest.approx(4)
    assert figures.waiting_share == pytest.approx(3 / 12)
    assert figures.padding_share == pytest.approx(1 / 2)
    assert figures.predicted_share == pytest.approx(1 / 2)
    assert figures.flops_per_second == pytest.approx(3 * (6 * (10 * 4 + 100 * 2) + 12 * 2 * (3 * 3 + 1 * 1)) / 12)


def test_without_warm_up_the_first_batch_starts_the_clock(clock):
    stopwatch = Stopwatch(CPU, WORK, warmup_steps=0, steps=2, pad_token_id=0)
    measure(stopwatch, clock, waits=[9, 1], works=[2, 3])
    figures = stopwatch.figures()
    assert figures.tokens_per_second == pytest.approx(8 / 6)
    assert figures.waiting_share == pytest.approx(1 / 6)


def test_a_step_may_have_several_batches(clock):
    stopwatch = Stopwatch(CPU, WORK, warmup_steps=1, steps=1, pad_token_id=0)
    measure(stopwatch, clock, waits=[1], works=[1])
    clock.now += 2
    stopwatch.batch_arrives(BATCH)
    measure(stopwatch, clock, waits=[1], works=[1])
    figures = stopwatch.figures()
    assert figures.tokens == 8
    assert figures.waiting_share == pytest.approx(2 / 4)


def test_a_training_that_ended_early_gives_no_figures(clock):
    stopwatch = Stopwatch(CPU, WORK, warmup_steps=1, steps=2, pad_token_id=0)
    measure(stopwatch, clock, waits=[1, 1], works=[1, 1])
    with pytest.raises(RuntimeError, match=r"measured steps \(1\) must be 2"):
        stopwatch.figures()
