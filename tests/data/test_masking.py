from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from hf_minilm.data.draws import Purpose, random_bits
from hf_minilm.data.masking import Masking

VOCABULARY = 50


def random_input(seed: int) -> dict[str, np.ndarray]:
    """Sequences of words of one to six tokens, with special tokens and now and then an unknown word."""
    generator = np.random.default_rng(seed)
    tokens: list[int] = []
    word_starts: list[bool] = []
    sequence_starts: list[bool] = []
    for _ in range(int(generator.integers(1, 8))):
        sequence = [[2], *(_random_word(generator) for _ in range(int(generator.integers(1, 30)))), [3]]
        sequence_starts += [True] + [False] * (sum(map(len, sequence)) - 1)
        word_starts += [place == 0 for word in sequence for place in range(len(word))]
        tokens += [token for word in sequence for token in word]
    bits = random_bits(seed, Purpose.MASKS, counter=(0, 0, 0), size=2 * len(tokens)).reshape(2, -1)
    return {
        "input_ids": np.array(tokens),
        "word_starts": np.array(word_starts),
        "sequence_starts": np.array(sequence_starts),
        "word_bits": bits[0],
        "token_bits": bits[1],
    }


def _random_word(generator: np.random.Generator) -> list[int]:
    if generator.random() < 0.05:
        return [1]
    return generator.integers(5, VOCABULARY, size=int(generator.integers(1, 7))).tolist()


def words_of_sequences(given: dict[str, np.ndarray]) -> list[list[list[int]]]:
    """The positions of each maskable word of each sequence."""
    sequences: list[list[list[int]]] = []
    for position, token in enumerate(given["input_ids"].tolist()):
        if given["sequence_starts"][position]:
            sequences.append([])
        if token < 5:
            continue
        if given["word_starts"][position]:
            sequences[-1].append([])
        sequences[-1][-1].append(position)
    return sequences


def choose_one_by_one(words: list[list[int]], bits: np.ndarray, rate: float) -> set[int]:
    """The selection as it is described: words in random order, one that would overshoot is passed over."""
    room = max(1, int(rate * sum(map(len, words)) + 0.5))
    order = sorted(words, key=lambda word: int(bits[word[0]]))
    chosen: set[int] = set()
    for word in order:
        if len(chosen) + len(word) <= room:
            chosen.update(word)
    return chosen or set(order[0] if order else ())


@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(40))
def test_selected_words_equal_those_chosen_one_by_one(
    seed: int, rate: float, encoder_tokens: Callable[[int], SimpleNamespace]
) -> None:
    given = random_input(seed)

    _, labels = Masking(encoder_tokens(VOCABULARY), mask_rate=rate).apply(**given)

    selected = set(np.flatnonzero(labels != -100).tolist())
    expected = [choose_one_by_one(words, given["word_bits"], rate) for words in words_of_sequences(given)]
    assert selected == set().union(*expected)
    assert all(labels[position] == given["input_ids"][position] for position in selected)


@pytest.mark.parametrize("seed", range(20))
def test_without_whole_words_the_number_of_selected_tokens_is_exact(
    seed: int, encoder_tokens: Callable[[int], SimpleNamespace]
) -> None:
    given = random_input(seed)

    _, labels = Masking(encoder_tokens(VOCABULARY), whole_word=False).apply(**given)

    for words in words_of_sequences(given):
        positions = [position for word in words for position in word]
        expected = max(1, int(0.15 * len(positions) + 0.5)) if positions else 0
        assert (labels[positions] != -100).sum() == expected


def test_eighty_ten_ten_and_random_tokens_are_even_over_ordinary_ones(
    encoder_tokens: Callable[[int], SimpleNamespace],
) -> None:
    size = 400_000
    bits = random_bits(0, Purpose.MASKS, counter=(0, 0, 0), size=2 * size).reshape(2, -1)
    input_ids = np.full(size, 9)
    starts = np.arange(size) % 100 == 0

    corrupted, labels = Masking(encoder_tokens(VOCABULARY), mask_rate=0.5).apply(
        input_ids,
        word_starts=np.ones(size, np.bool_),
        sequence_starts=starts,
        word_bits=bits[0],
        token_bits=bits[1],
    )

    seen = corrupted[labels != -100]
    assert len(seen) == size // 2
    counts = np.bincount(seen, minlength=VOCABULARY)
    assert counts[4] / len(seen) == pytest.approx(0.8, abs=0.005)
    assert counts[9] / len(seen) == pytest.approx(0.1 + 0.1 / 45, abs=0.005)
    others = np.delete(counts, [0, 1, 2, 3, 4, 9])
    expected = 0.1 * len(seen) / 45
    assert counts[:4].sum() == 0
    assert np.all(np.abs(others - expected) < 5 * np.sqrt(expected))
    assert np.array_equal(corrupted[labels == -100], input_ids[labels == -100])


def test_each_token_of_a_word_is_replaced_or_kept_on_its_own(
    encoder_tokens: Callable[[int], SimpleNamespace],
) -> None:
    size = 30_000
    bits = random_bits(1, Purpose.MASKS, counter=(0, 0, 0), size=2 * size).reshape(2, -1)
    corrupted, labels = Masking(encoder_tokens(VOCABULARY), mask_rate=0.5).apply(
        np.full(size, 9),
        word_starts=np.arange(size) % 3 == 0,
        sequence_starts=np.arange(size) % 300 == 0,
        word_bits=bits[0],
        token_bits=bits[1],
    )

    words = (labels != -100).reshape(-1, 3)
    assert np.array_equal(words.any(axis=1), words.all(axis=1))
    masked = (corrupted == 4).reshape(-1, 3)[words.all(axis=1)]
    assert masked.all(axis=1).mean() == pytest.approx(0.8**3, abs=0.03)


def test_a_sequence_whose_words_are_all_too_long_still_has_one_selected(
    encoder_tokens: Callable[[int], SimpleNamespace],
) -> None:
    bits = np.arange(16, dtype=np.uint64).reshape(2, -1) << np.uint64(50)
    _, labels = Masking(encoder_tokens(VOCABULARY)).apply(
        np.array([2, 5, 6, 7, 8, 9, 10, 3]),
        word_starts=np.array([1, 1, 0, 0, 1, 0, 0, 1], np.bool_),
        sequence_starts=np.arange(8) == 0,
        word_bits=bits[0],
        token_bits=bits[1],
    )
    assert labels.tolist() == [-100, 5, 6, 7, -100, -100, -100, -100]


def test_nothing_is_selected_where_there_is_nothing_to_restore(
    encoder_tokens: Callable[[int], SimpleNamespace],
) -> None:
    input_ids = np.array([2, 1, 3, 0, 0])
    corrupted, labels = Masking(encoder_tokens(VOCABULARY)).apply(
        input_ids,
        word_starts=np.ones(5, np.bool_),
        sequence_starts=np.array([1, 0, 0, 1, 0], np.bool_),
        word_bits=np.zeros(5, np.uint64),
        token_bits=np.zeros(5, np.uint64),
    )
    assert np.array_equal(corrupted, input_ids)
    assert (labels == -100).all()


def test_mistakes_are_named(
    encoder_tokens: Callable[[int], SimpleNamespace], decoder_tokens: Callable[[int], SimpleNamespace]
) -> None:
    special = encoder_tokens(VOCABULARY)
    with pytest.raises(ValueError, match=r"mask_rate \(0\) must be above 0"):
        Masking(special, mask_rate=0)
    with pytest.raises(ValueError, match=r"mask_share \(0.8\) and random_share \(0.3\) must be at least 0"):
        Masking(special, random_share=0.3)
    with pytest.raises(ValueError, match=r"mask token \(None\) must exist; use an encoder tokenizer"):
        Masking(decoder_tokens(VOCABULARY))
