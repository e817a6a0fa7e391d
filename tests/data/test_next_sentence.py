from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hf_minilm.data.cutting import find_sentences
from hf_minilm.data.next_sentence import check_pairs_possible, draw_pairs
from hf_minilm.data.sequences import Segments, Sequences

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
    return draw_pairs(store, find_sentences(store), longest, seed=seed, epoch=epoch)


@pytest.mark.parametrize("seed", range(30))
def test_every_token_of_the_corpus_stands_in_exactly_one_sequence_and_every_sequence_fits(
    seed: int, random_store: Callable[..., Store]
) -> None:
    generator = np.random.default_rng(seed)
    longest = int(generator.integers(5, 90))
    store = random_store(seed, num_documents=int(generator.integers(2, 60)), mean_sentences=generator.uniform(1, 12))

    sequences = draw(store, longest, seed=seed, epoch=seed)

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
def test_the_second_segment_begins_a_sentence_and_a_part_of_one_alone_is_no_tiny_segment(
    seed: int, random_store: Callable[..., Store]
) -> None:
    store = random_store(seed, num_documents=30, mean_sentences=14)
    sequences = draw(store, 80, seed=seed)
    first, second = sequences.first, sequences.second
    pairs = np.flatnonzero(sequences.label != -100).tolist()

    assert len(pairs) > 0.7 * len(first.length)
    for index in pairs:
        opened, flags = (store.flags(int(part.document[index])) for part in (first, second))
        begin, stop = int(second.start[index]), int(second.start[index] + second.length[index])
        assert flags[begin] & 2
        ends_inside = stop < len(flags) and not flags[stop] & 2
        assert not ends_inside or (flags[begin + 1 : stop] & 2).any() or stop - begin >= 8
        begin, stop = int(first.start[index]), int(first.start[index] + first.length[index])
        assert stop == len(opened) or opened[stop] & 2
        assert opened[begin] & 2 or (opened[begin + 1 : stop] & 2).any() or stop - begin >= 8


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
        total = pairs.first.length + pairs.second.length
        columns = [pairs.first.length // 4, pairs.second.length // 4, begins, *ends, pairs.second.start // 20]
        columns += [total, cut_inside(store, pairs.second), cut_inside(store, pairs.first, at_end=False)]
        features.append(np.stack(columns, axis=1)[pairs.label != -100])
        labels.append(pairs.label[pairs.label != -100])
    table, label = np.concatenate(features), np.concatenate(labels)

    assert len(label) > 8000
    assert abs(label.mean() - 0.5) < 0.02
    for columns in ([0], [1], [5], [0, 1], [0, 2], [1, 5], [3, 4], [0, 1, 2, 4], [6], [4, 6, 7], [2, 6, 7, 8], [1, 7]):
        assert majority_accuracy(table[:, columns], label) < 0.53, columns


def cut_inside(store: Store, part: Segments, *, at_end: bool = True) -> np.ndarray:
    """Whether each segment ends, or begins, inside a sentence."""
    places = part.start + (part.length if at_end else 0)
    flags = [store.flags(document) for document in part.document.tolist()]
    return np.array([place < len(each) and not each[place] & 2 for each, place in zip(flags, places, strict=True)])


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
    assert (totals > 97).mean() > 0.75


def test_nearly_all_of_a_few_stretches_find_a_partner_with_a_second_segment_of_the_same_length(
    random_store: Callable[..., Store],
) -> None:
    store = random_store(3, num_documents=12, mean_sentences=60)
    pairs = draw(store, 200)
    assert len(pairs.label) < 60
    assert (pairs.label != -100).mean() > 0.85


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
        check_pairs_possible(find_sentences(store))
