from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hf_minilm.data.cutting import cut_documents, find_sentences
from hf_minilm.data.sequences import Segments

Store = Any  # the in-memory store of conftest.py


def cut(store: Store, longest: int, *, seed: int = 0, epoch: int = 0, short_share: float = 0.0) -> Segments:
    return cut_documents(store, find_sentences(store), longest, seed=seed, epoch=epoch, short_share=short_share)


def of_document(stretches: Segments, document: int) -> tuple[list[int], list[int]]:
    chosen = stretches.document == document
    return stretches.start[chosen].tolist(), stretches.length[chosen].tolist()


@pytest.mark.parametrize("short_share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_the_stretches_of_a_document_are_the_document_and_each_fits(
    seed: int, short_share: float, random_store: Callable[..., Store]
) -> None:
    generator = np.random.default_rng(seed)
    longest = int(generator.integers(5, 90))
    store = random_store(seed, num_documents=30, mean_sentences=generator.uniform(1, 20))
    stretches = cut(store, longest, seed=seed, short_share=short_share)

    assert 1 <= stretches.length.min() <= stretches.length.max() <= longest
    for document in range(store.num_documents):
        starts, lengths = of_document(stretches, document)
        assert [0, *np.cumsum(lengths).tolist()] == [*starts, store.lengths[document]]


def test_a_document_that_fits_is_never_cut_and_a_longer_one_fills_all_but_its_last_stretch(
    random_store: Callable[..., Store],
) -> None:
    store = random_store(1, num_documents=80, mean_sentences=12)
    stretches = cut(store, 100)

    num_cut = 0
    for document in range(store.num_documents):
        _, lengths = of_document(stretches, document)
        if store.lengths[document] <= 100:
            assert lengths == [store.lengths[document]]
            continue
        num_cut += 1
        # The words here have a few tokens; only the stretch before a document's last may give more away.
        assert all(length > 100 - 8 for length in lengths[:-2])
        assert lengths[-2] + lengths[-1] > 100
        assert lengths[-1] >= 12
    assert 20 < num_cut < 75


def test_a_full_stretch_is_cut_before_a_word(random_store: Callable[..., Store]) -> None:
    store = random_store(2, mean_sentences=30)
    stretches = cut(store, 50)
    assert len(stretches.length) > 5 * store.num_documents
    for document, start in zip(stretches.document.tolist(), stretches.start.tolist(), strict=True):
        assert store.flags(document)[start] & 1


def test_a_case_cut_by_hand(memory_store: Callable[..., Store]) -> None:
    # Words of two tokens in a sentence of 40, then sentences of 2 and of 1: cut before a word, and before an eighth.
    sentences = [[[word, 100 + word] for word in range(10, 30)], [[7], [8]], [[9]]]
    store = memory_store([sentences, [], sentences])
    found = find_sentences(store)

    assert found.starts.tolist() == [0, 40, 42, 43, 83, 85, 86]
    assert found.document_offsets.tolist() == [0, 3, 3, 6]
    assert found.document_starts.tolist() == [0, 43, 43, 86]
    for document in (0, 2):
        assert of_document(cut(store, 15), document) == ([0, 14, 28], [14, 14, 15])
    assert of_document(cut(store, 21), 0) == ([0, 20, 41], [20, 21, 2])


def test_the_stretch_before_the_last_gives_tokens_away_so_that_the_last_has_an_eighth(
    memory_store: Callable[..., Store],
) -> None:
    store = memory_store([[[[token] for token in range(10, 51)]]])
    assert of_document(cut(store, 40), 0) == ([0, 36], [36, 5])


def test_a_word_longer_than_an_eighth_of_a_stretch_is_cut_inside(memory_store: Callable[..., Store]) -> None:
    store = memory_store([[[[5] * 40, list(range(10, 42))]]])
    assert of_document(cut(store, 48), 0) == ([0, 48], [48, 24])
    assert of_document(cut(memory_store([[[list(range(10, 33))]]]), 10), 0) == ([0, 10, 20], [10, 10, 3])


def test_short_stretches_end_with_a_sentence_and_have_two_where_two_fit(random_store: Callable[..., Store]) -> None:
    store = random_store(3, num_documents=60, mean_sentences=20)
    stretches = cut(store, 60, short_share=1.0)

    numbers = []
    for document in range(store.num_documents):
        flags = store.flags(document)
        starts, lengths = of_document(stretches, document)
        assert all(flags[start] & 2 for start in starts)
        numbers += [int((flags[s : s + n] & 2).sum() / 2) for s, n in zip(starts, lengths, strict=True)]
    assert 25 < stretches.length.mean() < 40
    assert np.mean(np.array(numbers) >= 2) > 0.97


def test_cuts_at_random_lengths_differ_by_epoch_and_by_seed_and_are_drawn_again_alike(
    random_store: Callable[..., Store],
) -> None:
    store = random_store(4, mean_sentences=30)
    arguments = ((0, 0), (0, 0), (0, 1), (1, 0))
    drawn = [cut(store, 60, seed=seed, epoch=epoch, short_share=0.3).start.tolist() for seed, epoch in arguments]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0] != drawn[3]
    assert cut(store, 60, seed=0).start.tolist() == cut(store, 60, seed=1).start.tolist()
