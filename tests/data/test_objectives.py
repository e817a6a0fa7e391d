from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hf_minilm.data.objectives import CausalObjective, MaskedObjective
from hf_minilm.data.order import RowKey, RowOrder, share

Store = Any  # the in-memory store of conftest.py
Special = Callable[[int], Any]
PAD, CLASSIFY, SEPARATE, MASK = 0, 2, 3, 4
BEGIN, END = 1, 2


def all_keys(objective: Any, epoch: int = 0) -> list[RowKey]:
    return [RowKey(epoch, row) for row in range(objective.rows_in_epoch(epoch))]


def sequences_of(batch: dict[str, torch.Tensor], name: str) -> list[list[int]]:
    """Divide a batch where positions restart; the padding at the end of a row is one of the sequences."""
    sequences: list[list[int]] = []
    for positions, values in zip(batch["position_ids"].tolist(), batch[name].tolist(), strict=True):
        for position, value in zip(positions, values, strict=True):
            if position == 0:
                sequences.append([])
            assert position == len(sequences[-1])
            sequences[-1].append(value)
    return sequences


def restored(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo the masks."""
    predicted = batch["labels"] != -100
    return batch | {"input_ids": torch.where(predicted, batch["labels"], batch["input_ids"])}


def corpus_text(store: Store) -> Counter[int]:
    return Counter(np.concatenate([store.tokens(document) for document in range(store.num_documents)]).tolist())


@pytest.mark.parametrize("seed", range(20))
def test_causal_rows_hold_every_document_in_order_and_nothing_is_lost(
    seed: int, random_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    row_length = int(np.random.default_rng(seed).integers(8, 80))
    store = random_store(seed, num_documents=25)
    objective = CausalObjective(store, decoder_tokens(10_000), row_length=row_length, seed=seed)
    batch = objective.batch(0, all_keys(objective))

    pieces = [piece for piece in sequences_of(batch, "input_ids") if piece[0] != PAD]
    # A token occurs once in the corpus, so pieces sort into their documents' order by their first ordinary token.
    pieces.sort(key=lambda piece: next((token for token in piece if token > END), 10_000))
    stream = [token for piece in pieces for token in piece]
    expected = [
        token for number in range(store.num_documents) for token in (BEGIN, *store.tokens(number).tolist(), END)
    ]
    assert stream == expected
    assert all(len(piece) >= 2 for piece in pieces)


def test_the_end_stands_for_the_begin_and_for_padding_where_a_tokenizer_has_neither(
    memory_store: Callable[..., Store],
) -> None:
    special = SimpleNamespace(
        pad=None, unknown=None, classify=None, separate=None, mask=None, begin=None, end=2, vocab_size=50
    )
    objective = CausalObjective(memory_store([[[[7, 8, 9]]]]), special, row_length=8, seed=0)
    batch = objective.batch(0, all_keys(objective))
    assert batch["input_ids"].tolist() == [[2, 7, 8, 9, 2, 2, 2, 2]]
    assert batch["labels"].tolist() == [[-100, 7, 8, 9, 2, -100, -100, -100]]


def test_a_document_longer_than_a_row_is_split_and_nothing_is_lost(
    memory_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    store = memory_store([[[[token] for token in range(10, 39)]]])
    objective = CausalObjective(store, decoder_tokens(50), row_length=10, seed=0)
    batch = objective.batch(0, all_keys(objective))

    # 31 tokens with <s> and </s>: the last piece of one token takes another from the piece before.
    assert sorted(sequences_of(batch, "input_ids")) == sorted(
        [[1, *range(10, 19)], list(range(19, 29)), list(range(29, 38)), [0], [38, 2], [0] * 8]
    )


def test_causal_labels_are_the_tokens_but_for_the_first_of_each_sequence_and_padding(
    random_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    objective = CausalObjective(random_store(0), decoder_tokens(10_000), row_length=50, seed=0)
    batch = objective.batch(0, all_keys(objective))

    ignored = (batch["position_ids"] == 0) | (batch["input_ids"] == PAD)
    assert torch.equal(batch["labels"], torch.where(ignored, -100, batch["input_ids"]))
    assert set(batch) == {"input_ids", "position_ids", "labels"}


@pytest.mark.parametrize("next_sentence", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_masked_rows_hold_every_token_of_the_corpus_once_an_epoch(
    seed: int, next_sentence: bool, random_store: Callable[..., Store], encoder_tokens: Special
) -> None:
    store = random_store(seed)
    objective = MaskedObjective(
        store, encoder_tokens(10_000), row_length=90, seed=seed, next_sentence=next_sentence, max_sequence_length=60
    )
    for epoch in (0, 3):
        batch = restored(objective.batch(5, all_keys(objective, epoch)))
        tokens = Counter(batch["input_ids"].flatten().tolist())
        assert Counter({token: count for token, count in tokens.items() if token > MASK}) == corpus_text(store)
        sequences = [sequence for sequence in sequences_of(batch, "input_ids") if sequence[0] != PAD]
        assert all(sequence[0] == CLASSIFY and sequence[-1] == SEPARATE for sequence in sequences)
        assert max(map(len, sequences)) <= 60


def test_pairs_have_token_types_and_a_label_at_their_first_token(
    random_store: Callable[..., Store], encoder_tokens: Special
) -> None:
    store = random_store(2, num_documents=60)
    objective = MaskedObjective(store, encoder_tokens(10_000), row_length=128, seed=0, next_sentence=True)
    batch = restored(objective.batch(0, all_keys(objective)))
    document_of = {token: number for number in range(60) for token in store.tokens(number).tolist()}

    labels = Counter()
    names = ("input_ids", "token_type_ids", "next_sentence_label")
    for tokens, types, pair in zip(*(sequences_of(batch, name) for name in names), strict=True):
        assert set(pair[1:]) <= {-100}
        labels[pair[0]] += 1
        if pair[0] == -100:
            assert 1 not in types
            continue
        middle = tokens.index(SEPARATE) + 1
        assert types == [0] * middle + [1] * (len(tokens) - middle)
        first, second = tokens[1 : middle - 1], tokens[middle:-1]
        assert (second[0] == first[-1] + 1) == (pair[0] == 0)
        assert (document_of[first[0]] == document_of[second[0]]) == (pair[0] == 0)
    assert labels[0] > 10
    assert labels[1] > 10


@pytest.mark.parametrize("whole_word", [False, True])
def test_about_fifteen_percent_of_each_sequence_is_predicted_and_never_a_special_token(
    whole_word: bool, random_store: Callable[..., Store], encoder_tokens: Special
) -> None:
    store = random_store(3)
    objective = MaskedObjective(store, encoder_tokens(10_000), row_length=64, seed=0, whole_word=whole_word)
    batch = objective.batch(0, all_keys(objective))

    assert set(batch) == {"input_ids", "position_ids", "token_type_ids", "labels"}
    assert not set(batch["labels"].flatten().tolist()) & {PAD, 1, CLASSIFY, SEPARATE, MASK}
    originals = sequences_of(restored(batch), "input_ids")
    for tokens, labels in zip(originals, sequences_of(batch, "labels"), strict=True):
        num_tokens = sum(token > MASK for token in tokens)
        num_predicted = sum(label != -100 for label in labels)
        expected = max(1, int(0.15 * num_tokens + 0.5)) if num_tokens else 0
        assert num_predicted == expected or (whole_word and abs(num_predicted - expected) <= 3)
    kept = batch["labels"] == -100
    assert torch.equal(batch["input_ids"][kept], restored(batch)["input_ids"][kept])


def test_whole_words_are_predicted_together(random_store: Callable[..., Store], encoder_tokens: Special) -> None:
    store = random_store(4)
    objective = MaskedObjective(store, encoder_tokens(10_000), row_length=64, seed=0, next_sentence=True)
    batch = objective.batch(0, all_keys(objective))

    predicted = set(batch["labels"].flatten().tolist())
    for document in range(store.num_documents):
        starts = np.flatnonzero(store.flags(document) & 1)
        for word in np.split(store.tokens(document), starts[1:]):
            assert len({token in predicted for token in word.tolist()}) == 1


def objectives(store: Store, encoder: Any, decoder: Any) -> list[Any]:
    return [
        CausalObjective(store, decoder, row_length=48, seed=9),
        MaskedObjective(store, encoder, row_length=48, seed=9),
        MaskedObjective(store, encoder, row_length=96, seed=9, next_sentence=True, max_sequence_length=48),
    ]


def test_a_row_is_the_same_in_any_company_so_processes_together_make_the_same_step(
    random_store: Callable[..., Store], encoder_tokens: Special, decoder_tokens: Special
) -> None:
    for objective in objectives(random_store(5), encoder_tokens(10_000), decoder_tokens(10_000)):
        order = RowOrder(objective.rows_in_epoch, 7, seed=2)
        for step in (0, 3, order.num_steps(1) - 1):
            rows = order.rows(step)
            whole = objective.batch(step, rows)
            for num_processes in (2, 3, 9):
                parts = [
                    objective.batch(step, share(rows, process, num_processes=num_processes))
                    for process in range(num_processes)
                ]
                for name, tensor in whole.items():
                    assert torch.equal(torch.cat([part[name] for part in parts]), tensor)
                    assert tensor.dtype == torch.int64


def test_a_batch_can_be_drawn_again_by_a_new_objective_that_begins_at_that_step(
    random_store: Callable[..., Store], encoder_tokens: Special, decoder_tokens: Special
) -> None:
    store, encoder, decoder = random_store(6), encoder_tokens(10_000), decoder_tokens(10_000)
    for used, new in zip(objectives(store, encoder, decoder), objectives(store, encoder, decoder), strict=True):
        order = RowOrder(used.rows_in_epoch, 5, seed=1)
        batches = [used.batch(step, order.rows(step)) for step in range(25)]
        again = new.batch(24, RowOrder(new.rows_in_epoch, 5, seed=1).rows(24))
        assert all(torch.equal(batches[24][name], again[name]) for name in again)


def test_masks_differ_by_step_by_seed_and_by_row(random_store: Callable[..., Store], encoder_tokens: Special) -> None:
    store = random_store(7)
    keys = [RowKey(0, 0), RowKey(1, 0)]
    first = MaskedObjective(store, encoder_tokens(10_000), row_length=64, seed=0)
    labels = [first.batch(step, keys)["labels"] for step in (0, 1)]
    assert not torch.equal(labels[0], labels[1])
    # Without pairs the row is the same in both epochs, its masks are not.
    assert not torch.equal(labels[0][0], labels[0][1])
    restored_rows = restored(first.batch(0, keys))["input_ids"]
    assert torch.equal(restored_rows[0], restored_rows[1])


def test_evaluation_goes_through_every_row_once_with_the_same_masks_each_time(
    random_store: Callable[..., Store], encoder_tokens: Special, decoder_tokens: Special
) -> None:
    store = random_store(8)
    for objective in objectives(store, encoder_tokens(10_000), decoder_tokens(10_000)):
        batches = list(objective.evaluation_batches(4))
        assert sum(len(batch["labels"]) for batch in batches) == objective.rows_in_epoch(0)
        text = Counter(token for batch in map(restored, batches) for token in batch["input_ids"].flatten().tolist())
        assert Counter({token: count for token, count in text.items() if token > 6}) == corpus_text(store)
        for batch, again in zip(batches, objective.evaluation_batches(4), strict=True):
            assert all(torch.equal(batch[name], again[name]) for name in batch)
        with pytest.raises(ValueError, match=r"rows_per_batch \(0\) must be at least 1"):
            next(objective.evaluation_batches(0))


def test_the_first_rows_of_an_evaluation_stand_for_all(
    random_store: Callable[..., Store], encoder_tokens: Special, decoder_tokens: Special
) -> None:
    store = random_store(8, num_documents=400)
    for objective in objectives(store, encoder_tokens(1_000_000), decoder_tokens(1_000_000)):
        numbers = torch.cat([(batch["position_ids"] == 0).sum(-1) for batch in objective.evaluation_batches(4)]).float()
        half = len(numbers) // 2
        # Packed in order of length, the first rows hold the fewest sequences.
        assert abs(numbers[:half].mean() - numbers[half:].mean()) < 0.15 * numbers.mean(), type(objective)


def test_figures_describe_the_epoch(
    random_store: Callable[..., Store], encoder_tokens: Special, decoder_tokens: Special
) -> None:
    store = random_store(9, num_documents=50)
    causal, _, pairs = objectives(store, encoder_tokens(10_000), decoder_tokens(10_000))
    figures = causal.describe()
    assert figures.num_tokens == store.num_tokens + 2 * store.num_documents
    assert figures.num_rows == causal.rows_in_epoch(0)
    assert figures.wasted_share == pytest.approx(1 - figures.num_tokens / (48 * figures.num_rows))
    batch = pairs.batch(0, all_keys(pairs, 1))
    num_labels = int((batch["next_sentence_label"] != -100).sum())
    assert pairs.describe(1).labelled_share == pytest.approx(num_labels / pairs.describe(1).num_sequences)
    assert pairs.describe(1).num_rows == len(batch["labels"])


@pytest.mark.parametrize("next_sentence", [False, True])
@pytest.mark.parametrize("row_length", [128, 256, 512])
@pytest.mark.parametrize(("num_documents", "mean_sentences"), [(60, 250), (400, 30), (4000, 3)])
def test_masked_rows_waste_less_than_three_percent_whatever_the_documents(
    next_sentence: bool,
    row_length: int,
    num_documents: int,
    mean_sentences: float,
    random_store: Callable[..., Store],
    encoder_tokens: Special,
) -> None:
    store = random_store(1, num_documents=num_documents, mean_sentences=mean_sentences, mean_words=14)
    special = encoder_tokens(1_000_000)
    objective = MaskedObjective(store, special, row_length=row_length, seed=0, next_sentence=next_sentence)
    assert objective.describe().wasted_share < 0.03
    assert not next_sentence or objective.describe().labelled_share > 0.8


def test_mistakes_are_named(
    random_store: Callable[..., Store],
    memory_store: Callable[..., Store],
    encoder_tokens: Special,
    decoder_tokens: Special,
) -> None:
    store, encoder, decoder = random_store(0), encoder_tokens(10_000), decoder_tokens(10_000)
    with pytest.raises(ValueError, match=r"row_length \(7\) must be at least 8"):
        CausalObjective(store, decoder, row_length=7, seed=0)
    with pytest.raises(ValueError, match=r"end token \(None\) must exist; use a decoder tokenizer"):
        CausalObjective(store, encoder, row_length=64, seed=0)
    with pytest.raises(ValueError, match=r"mask token \(None\) must exist; use an encoder tokenizer"):
        MaskedObjective(store, decoder, row_length=64, seed=0)
    with pytest.raises(ValueError, match=r"max_sequence_length \(65\) must be from 8 to row_length \(64\)"):
        MaskedObjective(store, encoder, row_length=64, seed=0, max_sequence_length=65)
    with pytest.raises(ValueError, match=r"short_share \(1.5\) must be from 0 to 1"):
        MaskedObjective(store, encoder, row_length=64, seed=0, short_share=1.5)
    with pytest.raises(ValueError, match=r"seed \(-1\) must be from 0"):
        MaskedObjective(store, encoder, row_length=64, seed=-1)
    alone = memory_store([[[[7], [8]], [[9]]]])
    with pytest.raises(ValueError, match=r"documents of two or more sentences \(1\) must be at least 2"):
        MaskedObjective(alone, encoder, row_length=64, seed=0, next_sentence=True)
    long_sentences = memory_store([[[[7]] * 13, [[8]] * 13]] * 3)
    with pytest.raises(ValueError, match=r"next-sentence pairs \(0\) must be at least 1 with sequences of 16 tokens"):
        MaskedObjective(long_sentences, encoder, row_length=16, seed=0, next_sentence=True)
