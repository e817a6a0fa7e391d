from collections import Counter

import numpy as np
import pytest

from hf_minilm.data.draws import Purpose, random_bits
from hf_minilm.data.order import RowKey, RowOrder, share

GOLDEN_WORDS = [1557092357091869106, 674220151953740885, 12956978939200045854]


def uneven_epochs(epoch: int) -> int:
    return 5 + (epoch * 7) % 11


@pytest.mark.parametrize("rows_per_step", [1, 3, 4, 7, 40])
def test_every_row_comes_exactly_once_an_epoch_and_epochs_follow_one_another(rows_per_step: int) -> None:
    order = RowOrder(uneven_epochs, rows_per_step, seed=3)
    num_steps = order.num_steps(9)

    keys = [key for step in range(num_steps) for key in order.rows(step)]

    expected = Counter(RowKey(epoch, row) for epoch in range(9) for row in range(uneven_epochs(epoch)))
    assert Counter(key for key in keys if key.epoch < 9) == expected
    assert [key.epoch for key in keys] == sorted(key.epoch for key in keys)
    assert all(len(order.rows(step)) == rows_per_step for step in range(num_steps))
    assert all(key.epoch >= 9 for key in order.rows(num_steps))


def test_any_step_can_be_asked_for_first_and_steps_in_any_order() -> None:
    forward = RowOrder(uneven_epochs, 4, seed=5)
    expected = [forward.rows(step) for step in range(30)]

    for step in np.random.default_rng(0).permutation(30).tolist():
        assert RowOrder(uneven_epochs, 4, seed=5).rows(step) == expected[step]
    backward = RowOrder(uneven_epochs, 4, seed=5)
    assert [backward.rows(step) for step in reversed(range(30))] == expected[::-1]


def test_epochs_are_counted_once_and_only_as_far_as_needed() -> None:
    asked = []

    def rows_in_epoch(epoch: int) -> int:
        asked.append(epoch)
        return 10

    order = RowOrder(rows_in_epoch, 5, seed=0)
    order.rows(0)
    assert asked == [0]
    order.rows(6)
    order.rows(1)
    assert asked == [0, 1, 2, 3]


def test_the_order_depends_on_the_seed_and_on_the_epoch() -> None:
    rows = {
        (seed, epoch): tuple(key.row for key in RowOrder(lambda _: 50, 50, seed=seed).rows(epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(rows.values())) == 4


def test_shuffled_rows_are_spread_evenly() -> None:
    order = RowOrder(lambda _: 4, 4, seed=11)
    first_rows = Counter(order.rows(step)[0].row for step in range(2000))
    assert all(abs(count - 500) < 4.5 * np.sqrt(500 * 0.75) for count in first_rows.values())


def test_steps_that_change_their_size_go_on_in_the_line_where_they_stand() -> None:
    before, rows = RowOrder(uneven_epochs, 4, seed=5), []
    for step in range(3):
        rows += before.rows(step)
    after = RowOrder(uneven_epochs, 6, seed=5, behind=(3, 12))
    rows += after.rows(3) + after.rows(4)
    assert rows == [key for step in range(6) for key in before.rows(step)]
    with pytest.raises(ValueError, match=r"step \(2\) must be at least 3"):
        after.rows(2)


@pytest.mark.parametrize("seed", range(100))
def test_processes_together_have_every_row_of_a_step_once_whatever_their_number(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num_rows, rows_per_step = int(generator.integers(1, 70)), int(generator.integers(1, 10))
    order = RowOrder(lambda _: num_rows, rows_per_step, seed=seed)
    rows = order.rows(int(generator.integers(0, 50)))

    for num_processes in (1, 2, 3, 4, 8):
        parts = [share(rows, process, num_processes=num_processes) for process in range(num_processes)]
        assert [key for part in parts for key in part] == rows
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"rows_per_step \(0\) must be at least 1"):
        RowOrder(uneven_epochs, 0, seed=0)
    with pytest.raises(ValueError, match=r"step \(-1\) must be at least 0"):
        RowOrder(uneven_epochs, 2, seed=0).rows(-1)
    with pytest.raises(ValueError, match=r"rows of epoch 0 \(0\) must be at least 1"):
        RowOrder(lambda _: 0, 2, seed=0).rows(0)
    with pytest.raises(ValueError, match=r"process \(2\) must be from 0 to num_processes - 1 \(1\)"):
        share([RowKey(0, 0)], 2, num_processes=2)
    with pytest.raises(ValueError, match=r"seed \(-1\) must be from 0"):
        RowOrder(uneven_epochs, 2, seed=-1).rows(0)


def test_random_words_are_the_same_for_ever() -> None:
    words = random_bits(7, Purpose.MASKS, counter=(1, 2, 3), size=3)
    assert words.tolist() == GOLDEN_WORDS
    assert random_bits(7, Purpose.MASKS, counter=(1, 2, 4), size=3).tolist() != GOLDEN_WORDS
    assert random_bits(7, Purpose.ORDER, counter=(1, 2, 3), size=3).tolist() != GOLDEN_WORDS
    assert random_bits(8, Purpose.MASKS, counter=(1, 2, 3), size=3).tolist() != GOLDEN_WORDS
    assert random_bits(7, Purpose.MASKS, counter=(1, 2, 3), size=9).tolist()[:3] == GOLDEN_WORDS
