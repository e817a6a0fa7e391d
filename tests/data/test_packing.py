import time

import numpy as np
import pytest

from hf_minilm.data.packing import pack


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


@pytest.mark.parametrize("seed", range(60))
def test_packing_equals_best_fit_decreasing_and_loses_and_repeats_no_piece(seed: int) -> None:
    generator = np.random.default_rng(seed)
    capacity = int(generator.integers(1, 70))
    lengths = generator.integers(1, capacity + 1, size=int(generator.integers(1, 200)))

    packing = pack(lengths, capacity, tie_breakers=generator.integers(0, 2**63, len(lengths)).astype(np.uint64))

    assert sorted(packing.pieces.tolist()) == list(range(len(lengths)))
    used = [int(lengths[packing.row(row)].sum()) for row in range(packing.num_rows)]
    assert sorted(capacity - tokens for tokens in used) == best_fit_decreasing_one_by_one(lengths.tolist(), capacity)
    assert packing.num_tokens == lengths.sum()
    assert packing.wasted_share == pytest.approx(1 - lengths.sum() / (capacity * packing.num_rows))


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
