import time

import numpy as np
import pytest

from hf_minilm.data.filling import fill_rows
from hf_minilm.data.packing import Packing, pack
from hf_minilm.data.packing_pairs import pack_pairs


def best_fit_decreasing_one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """The algorithm as it is defined, a piece at a time: the free space of each row at the end."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, space in enumerate(spaces) if space >= length]
        if not fitting:
            spaces.append(capacity)
            fitting = [len(spaces) - 1]
        spaces[min(fitting, key=lambda row: spaces[row])] -= length
    return sorted(spaces)


def filled_one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """The filling as it is defined, a row at a time: the free space of each row, by trying every set of pieces."""
    left, spaces = sorted(lengths, reverse=True), []
    while left:
        room = capacity - left.pop(0)
        # Of each sum the set whose pieces are longest, compared from the longest on.
        sets: dict[int, tuple[int, ...]] = {0: ()}
        for place, length in enumerate(left):
            for total, chosen in list(sets.items()):
                if total + length <= room:
                    more = (*chosen, place)
                    sets[total + length] = min(sets.get(total + length, more), more)
        left = [length for place, length in enumerate(left) if place not in sets[max(sets)]]
        spaces.append(room - max(sets))
    return sorted(spaces)


@pytest.mark.parametrize("seed", range(60))
def test_packing_is_the_better_of_best_fit_decreasing_and_filling_and_loses_and_repeats_no_piece(seed: int) -> None:
    generator = np.random.default_rng(seed)
    capacity = int(generator.integers(1, 70))
    lengths = generator.integers(1, capacity + 1, size=int(generator.integers(1, 60)))

    packing = pack(lengths, capacity, tie_breakers=generator.integers(0, 2**63, len(lengths)).astype(np.uint64))

    assert sorted(packing.pieces.tolist()) == list(range(len(lengths)))
    used = [int(lengths[packing.row(row)].sum()) for row in range(packing.num_rows)]
    ways = [way(lengths.tolist(), capacity) for way in (best_fit_decreasing_one_by_one, filled_one_by_one)]
    assert sorted(capacity - tokens for tokens in used) == min(ways, key=len)
    assert packing.num_tokens == lengths.sum()
    assert packing.wasted_share == pytest.approx(1 - lengths.sum() / (capacity * packing.num_rows))


@pytest.mark.parametrize("seed", range(60))
def test_each_filled_row_begins_with_the_longest_piece_left_and_has_the_set_that_fills_it_best(seed: int) -> None:
    generator = np.random.default_rng(seed)
    capacity = int(generator.integers(1, 70))
    lengths = np.sort(generator.integers(1, capacity + 1, size=int(generator.integers(1, 60))))[::-1]

    row_of_piece, num_rows = fill_rows(lengths, capacity)

    used = np.bincount(row_of_piece, weights=lengths, minlength=num_rows).astype(int)
    assert used.min() > 0
    assert sorted((capacity - used).tolist()) == filled_one_by_one(lengths.tolist(), capacity)


def test_pieces_of_similar_lengths_fill_rows_that_best_fit_leaves_open() -> None:
    lengths = np.array([80, 48] * 4)
    assert len(best_fit_decreasing_one_by_one(lengths.tolist(), 256)) == 3
    packing = pack(lengths, 256)
    assert [sorted(lengths[packing.row(row)].tolist()) for row in range(packing.num_rows)] == [[48, 48, 80, 80]] * 2
    assert packing.wasted_share == 0


def test_a_case_packed_by_hand() -> None:
    packing = pack(np.array([3, 6, 4, 7, 2]), 10)

    rows = [packing.row(row).tolist() for row in range(packing.num_rows)]
    assert rows == [[3, 0], [1, 2], [4]]
    assert packing.wasted_share == pytest.approx(8 / 30)


def test_the_same_pieces_and_tie_breakers_give_the_same_rows_and_others_mix_equal_lengths() -> None:
    lengths = np.full(64, 5)
    keys = np.random.default_rng(0).integers(0, 2**63, 64).astype(np.uint64)

    assert np.array_equal(pack(lengths, 20, tie_breakers=keys).pieces, pack(lengths, 20, tie_breakers=keys).pieces)
    assert pack(lengths, 20).pieces.tolist() == list(range(64))
    assert pack(lengths, 20, tie_breakers=keys).pieces.tolist() != list(range(64))


def test_unsigned_lengths_and_no_pieces_at_all_are_packed() -> None:
    assert pack(np.array([1, 3], np.uint8), 4).pieces.tolist() == [1, 0]
    assert pack(np.zeros(0, np.int64), 4).num_rows == 0
    assert pack(np.zeros(0, np.int64), 4).wasted_share == 0.0


def test_realistic_document_lengths_waste_less_than_three_percent() -> None:
    documents = np.random.default_rng(1).lognormal(5.5, 1.1, size=20_000).astype(np.int64) + 2
    for capacity in (128, 512, 1024):
        rests = documents % capacity
        pieces = np.concatenate([np.full((documents // capacity).sum(), capacity), rests[rests > 0]])
        assert pack(pieces, capacity).wasted_share < 0.03


def test_a_million_pieces_are_packed_in_seconds() -> None:
    lengths = np.random.default_rng(2).integers(1, 513, size=1_000_000)

    start = time.process_time()
    packing = pack(lengths, 512)

    assert time.process_time() - start < 5
    assert packing.wasted_share < 0.01


@pytest.mark.parametrize(("lengths", "shown"), [([0, 3], "0 to 3"), ([5, 11], "5 to 11")])
def test_a_piece_that_is_empty_or_longer_than_a_row_is_an_error(lengths: list[int], shown: str) -> None:
    with pytest.raises(ValueError, match=rf"lengths \({shown}\) must be from 1 to 10"):
        pack(np.array(lengths), 10)


def test_a_row_without_positions_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"capacity \(0\) must be at least 1"):
        pack(np.array([1]), 0)


def used(packing: Packing, lengths: np.ndarray) -> list[int]:
    return [int(lengths[packing.row(row)].sum()) for row in range(packing.num_rows)]


def fewest_rows(first: np.ndarray, second: np.ndarray, capacities: tuple[int, int]) -> int:
    """A bound that no packing can go below: the tokens of the fuller part, and the pairs of which no two fit."""
    by_tokens = max(-(-int(lengths.sum()) // room) for lengths, room in zip((first, second), capacities, strict=True))
    by_pairs = max(int((2 * lengths > room).sum()) for lengths, room in zip((first, second), capacities, strict=True))
    return max(by_tokens, by_pairs)


@pytest.mark.parametrize("seed", range(60))
def test_every_pair_stands_in_one_row_both_parts_hold_it_and_no_two_rows_fit_into_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    capacities = tuple(generator.integers(1, 70, size=2).tolist())
    number = int(generator.integers(1, 200))
    first, second = (generator.integers(1, capacity + 1, size=number) for capacity in capacities)
    words = generator.integers(0, 2**63, number).astype(np.uint64)

    packing = pack_pairs(first, second, *capacities, tie_breakers=words)

    assert sorted(packing.pieces.tolist()) == list(range(number))
    rows = list(zip(used(packing, first), used(packing, second), strict=True))
    assert all(row[0] <= capacities[0] and row[1] <= capacities[1] for row in rows)
    for index, row in enumerate(rows):
        assert all(row[0] + other[0] > capacities[0] or row[1] + other[1] > capacities[1] for other in rows[:index])
    assert (packing.capacity, packing.num_tokens) == (sum(capacities), first.sum() + second.sum())
    assert packing.wasted_share == pytest.approx(1 - packing.num_tokens / (sum(capacities) * packing.num_rows))
    again = pack_pairs(first, second, *capacities, tie_breakers=words)
    assert np.array_equal(again.pieces, packing.pieces)
    assert np.array_equal(again.offsets, packing.offsets)


def test_pairs_packed_by_hand_make_up_for_one_another() -> None:
    # Long sources with short targets go with short sources with long targets, which neither length alone shows.
    first, second = np.array([8, 8, 2, 2, 5]), np.array([2, 2, 8, 8, 5])
    packing = pack_pairs(first, second, 10, 10)
    assert [packing.row(row).tolist() for row in range(packing.num_rows)] == [[0, 2], [1, 3], [4]]
    # Capacities count as one, however different they are.
    scaled = pack_pairs(first * 10, second, 100, 10)
    assert np.array_equal(scaled.pieces, packing.pieces)


def test_pairs_of_the_same_lengths_are_mixed_by_their_tie_breakers() -> None:
    lengths = np.full(64, 5)
    words = np.random.default_rng(0).integers(0, 2**63, 64).astype(np.uint64)
    assert pack_pairs(lengths, lengths, 20, 30).pieces.tolist() == list(range(64))
    assert pack_pairs(lengths, lengths, 20, 30, tie_breakers=words).pieces.tolist() == np.argsort(words).tolist()
    assert np.diff(pack_pairs(lengths, lengths, 20, 30).offsets).tolist() == [4] * 16


@pytest.mark.parametrize("alike", [0.0, 0.2, 2.0])
def test_a_hundred_thousand_pairs_are_packed_in_seconds_and_rows_exceed_the_lower_bound_by_little(alike: float) -> None:
    generator = np.random.default_rng(3)
    first = generator.integers(3, 61, size=120_000)
    second = np.clip(np.rint(first * np.exp(generator.normal(0, alike, len(first)))), 3, 60).astype(np.int64)

    start = time.process_time()
    packing = pack_pairs(first, second, 128, 128)

    assert time.process_time() - start < 3
    assert packing.num_rows < 1.015 * fewest_rows(first, second, (128, 128))


def test_no_pairs_at_all_are_packed_and_mistakes_are_named() -> None:
    none = np.zeros(0, np.int64)
    assert (pack_pairs(none, none, 4, 4).num_rows, pack_pairs(none, none, 4, 4).wasted_share) == (0, 0.0)
    one = np.array([1])
    with pytest.raises(ValueError, match=r"second_lengths \(1\) must be as many as first_lengths \(0\)"):
        pack_pairs(none, one, 4, 4)
    with pytest.raises(ValueError, match=r"second_capacity \(0\) must be at least 1"):
        pack_pairs(one, one, 4, 0)
    with pytest.raises(ValueError, match=r"first_lengths \(1 to 5\) must be from 1 to 4"):
        pack_pairs(np.array([1, 5]), np.array([1, 1]), 4, 9)
    with pytest.raises(ValueError, match=r"second_lengths \(0 to 0\) must be from 1 to 9"):
        pack_pairs(one, one * 0, 4, 9)
