from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hf_minilm.data.next_sentence import check_pairs_possible, draw_pairs
from hf_minilm.data.sequences import Segments, Sequences, sentence_units, single_sequences

Store = Any  # the in-memory store of conftest.py


def text(store: Store, segments: Segments, index: int) -> np.ndarray:
    start = int(segments.start[index])
    return store.tokens(int(segments.document[index]))[start : start + int(segments.length[index])]


def all_text(store: Store, sequences: Sequences) -> Counter[int]:
    parts = [
        text(store, part, index)
        for part in (sequences.first, sequences.second)
        for index in np.flatnonzero(part.length).tolist()
    ]
    return Counter(np.concatenate(parts).tolist())


def corpus_text(store: Store) -> Counter[int]:
    return Counter(np.concatenate([store.tokens(document) for document in range(store.num_documents)]).tolist())


def draw(store: Store, longest: int, *, seed: int = 0, epoch: int = 0) -> Sequences:
    return draw_pairs(sentence_units(store, longest), longest, seed=seed, epoch=epoch)


@pytest.mark.parametrize("seed", range(30))
def test_every_token_of_the_corpus_stands_in_exactly_one_sequence_and_every_sequence_fits(
    seed: int, random_store: Callable[..., Store]
) -> None:
    generator = np.random.default_rng(seed)
    longest = int(generator.integers(5, 90))
    store = random_store(seed, num_documents=int(generator.integers(2, 60)), mean_sentences=generator.uniform(1, 12))
    units = sentence_units(store, longest)

    for sequences in (draw_pairs(units, longest, seed=seed, epoch=seed), single_sequences(units, longest)):
        assert all_text(store, sequences) == corpus_text(store)
        assert (sequences.first.length + sequences.second.length).max() <= longest
        assert sequences.first.length.min() >= 1


@pytest.mark.parametrize("seed", range(10))
def test_a_true_pair_is_one_stretch_of_text_and_a_random_one_is_of_two_documents(
    seed: int, random_store: Callable[..., Store]
) -> None:
    store = random_store(seed, num_documents=30)
    sequences = draw(store, 80, seed=seed)
    first, second = sequences.first, sequences.second

    true, random = sequences.label == 0, sequences.label == 1
    assert true.any()
    assert random.any()
    assert np.array_equal(first.document[true], second.document[true])
    assert np.array_equal((first.start + first.length)[true], second.start[true])
    assert (first.document[random] != second.document[random]).all()
    assert (second.length[true | random] > 0).all()
    assert (second.length[sequences.label == -100] == 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_the_second_segment_begins_a_sentence_and_no_sentence_that_fits_is_cut(
    seed: int, random_store: Callable[..., Store]
) -> None:
    store = random_store(seed, num_documents=30)
    sequences = draw(store, 64, seed=seed)

    for part in (sequences.first, sequences.second):
        for index in np.flatnonzero(part.length).tolist():
            flags = store.flags(int(part.document[index]))
            start, stop = int(part.start[index]), int(part.start[index] + part.length[index])
            assert flags[start] & 2
            assert stop == len(flags) or flags[stop] & 2


def test_sentences_longer_than_a_sequence_are_cut_before_a_word_and_never_between_segments(
    memory_store: Callable[..., Store],
) -> None:
    sentences = [[[word, 100 + word] for word in range(10, 30)], [[7], [8]], [[9]]]
    store = memory_store([sentences, sentences])

    units = sentence_units(store, 15)

    assert units.boundaries.tolist() == [0, 14, 28, 40, 42, 43, 57, 71, 83, 85, 86]
    assert units.begins_sentence.tolist() == [True, False, False, True, True] * 2
    sequences = draw_pairs(units, 15, seed=0, epoch=0)
    starts = sequences.second.start[sequences.label != -100]
    assert set(starts.tolist()) <= {40, 42}


def test_a_word_longer_than_a_sequence_is_cut_inside(memory_store: Callable[..., Store]) -> None:
    units = sentence_units(memory_store([[[list(range(10, 33))]]]), 10)
    assert units.boundaries.tolist() == [0, 10, 20, 23]


def test_documents_without_any_token_are_passed_over(memory_store: Callable[..., Store]) -> None:
    sentences = [[[5, 6]], [[7]], [[8]]]
    store = memory_store([[], sentences, [], [], sentences, []])
    sequences = draw(store, 20)
    assert all_text(store, sequences) == corpus_text(store)
    assert set(sequences.first.document.tolist()) == {1, 4}


def test_the_lengths_and_places_of_segments_do_not_give_the_label_away(random_store: Callable[..., Store]) -> None:
    store = random_store(4, num_documents=2500, mean_sentences=9)
    features, labels = [], []
    for epoch in range(3):
        pairs = draw(store, 61, seed=1, epoch=epoch)
        ends = [part.start + part.length == store.lengths[part.document] for part in (pairs.first, pairs.second)]
        begins = pairs.first.start == 0
        columns = [pairs.first.length // 4, pairs.second.length // 4, begins, *ends, pairs.second.start // 20]
        features.append(np.stack(columns, axis=1)[pairs.label != -100])
        labels.append(pairs.label[pairs.label != -100])
    table, label = np.concatenate(features), np.concatenate(labels)

    assert len(label) > 8000
    assert abs(label.mean() - 0.5) < 0.02
    for columns in ([0], [1], [5], [0, 1], [0, 2], [1, 5], [3, 4], [0, 1, 2, 4]):
        assert majority_accuracy(table[:, columns], label) < 0.53, columns


def majority_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Learn the commoner label of each combination of features on one half, and try it on the other."""
    _, cells = np.unique(features, axis=0, return_inverse=True)
    chosen = np.random.default_rng(0).random(len(labels)) < 0.5
    votes = np.bincount(cells[chosen], weights=2.0 * labels[chosen] - 1, minlength=cells.max() + 1)
    guess = (votes[cells[~chosen]] > 0).astype(int)
    return float((guess == labels[~chosen]).mean())


def test_true_and_random_pairs_have_the_same_distribution_of_lengths(random_store: Callable[..., Store]) -> None:
    pairs = draw(random_store(5, num_documents=4000, mean_sentences=9), 61)
    for part in (pairs.first, pairs.second):
        shares = [
            np.cumsum(np.bincount(part.length[pairs.label == label], minlength=62)) / (pairs.label == label).sum()
            for label in (0, 1)
        ]
        # The two-sample Kolmogorov-Smirnov bound at one in ten thousand.
        bound = 2.23 * np.sqrt(2 / (pairs.label != -100).sum() * 2)
        assert np.abs(shares[0] - shares[1]).max() < bound


def test_each_epoch_draws_other_pairs_and_the_same_epoch_the_same(random_store: Callable[..., Store]) -> None:
    store = random_store(6)
    drawn = [draw(store, 60, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    tables = [np.stack([pairs.first.start[:50], pairs.first.length[:50], pairs.label[:50]]) for pairs in drawn]
    assert np.array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])
    assert not np.array_equal(tables[0], tables[3])


def test_most_sequences_are_full_and_about_a_tenth_is_short(random_store: Callable[..., Store]) -> None:
    store = random_store(7, num_documents=40, mean_sentences=120)
    pairs = draw(store, 100)
    totals = (pairs.first.length + np.where(pairs.label == 1, 0, pairs.second.length))[pairs.label == 0]
    assert 0.04 < (totals < 70).mean() < 0.14
    assert (totals > 85).mean() > 0.75


def test_a_document_that_outweighs_all_others_has_its_surplus_unlabelled(memory_store: Callable[..., Store]) -> None:
    sentence = [[5], [6], [7]]
    store = memory_store([[sentence] * 400, [sentence] * 20, [sentence] * 20])
    pairs = draw(store, 12)

    labelled = pairs.label != -100
    of_others = pairs.first.document > 0
    assert labelled[of_others].mean() > 0.9
    assert labelled[~of_others].sum() <= of_others.sum()
    assert all_text(store, pairs) == corpus_text(store)


def test_documents_of_one_sentence_make_single_segments_without_a_label(memory_store: Callable[..., Store]) -> None:
    store = memory_store([[[[5, 6]]], [[[7]], [[8]]], [[[9]], [[10]]]])
    pairs = draw(store, 20)
    assert pairs.label[0] == -100
    assert pairs.second.length.tolist() == [0, 1, 1]
    assert (pairs.label[1:] >= 0).all()


def test_fewer_than_two_documents_with_two_sentences_are_an_error(memory_store: Callable[..., Store]) -> None:
    store = memory_store([[[[5]], [[6]]], [[[7]]]])
    with pytest.raises(ValueError, match=r"documents of two or more sentences \(1\) must be at least 2.*give more"):
        check_pairs_possible(sentence_units(store, 20))
