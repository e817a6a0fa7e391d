from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hf_minilm.data.order import RowKey, RowOrder, share
from hf_minilm.data.sequence_to_sequence import DenoisingObjective, PairObjective, SpanNoise

Store = Any  # the in-memory store of conftest.py
Special = Callable[[int], Any]
PAD, BEGIN, END, IGNORED = 0, 1, 2, -100
SENTINELS = tuple(range(20_000, 20_100))
NAMES = {"input_ids", "position_ids", "decoder_input_ids", "decoder_position_ids", "labels"}


def all_keys(objective: Any) -> list[RowKey]:
    return [RowKey(0, row) for row in range(objective.rows_in_epoch(0))]


def sequences_of(positions: torch.Tensor, values: torch.Tensor) -> list[list[list[int]]]:
    """Divide each row where its positions restart; the padding at its end is one of the sequences."""
    rows: list[list[list[int]]] = []
    for row_positions, row_values in zip(positions.tolist(), values.tolist(), strict=True):
        rows.append([])
        for position, value in zip(row_positions, row_values, strict=True):
            if position == 0:
                rows[-1].append([])
            assert position == len(rows[-1][-1])
            rows[-1][-1].append(value)
    return rows


def unpacked(batch: dict[str, torch.Tensor]) -> list[tuple[list[int], list[int], list[int]]]:
    """Source, decoder input and labels of each sequence; sequence k of one part of a row belongs to k of the other."""
    sources = sequences_of(batch["position_ids"], batch["input_ids"])
    inputs = sequences_of(batch["decoder_position_ids"], batch["decoder_input_ids"])
    labels = sequences_of(batch["decoder_position_ids"], batch["labels"])
    found = []
    for row in zip(sources, inputs, labels, strict=True):
        without_tails = [[sequence for sequence in part if set(sequence) not in ({PAD}, {IGNORED})] for part in row]
        assert all(len(part) - len(whole) in (0, 1) for part, whole in zip(row, without_tails, strict=True))
        assert all(part[: len(whole)] == whole for part, whole in zip(row, without_tails, strict=True))
        found.extend(zip(*without_tails, strict=True))
    return found


def random_pairs(memory_store: Callable[..., Store], seed: int, number: int = 300) -> tuple[Store, Store]:
    """Sources and targets in which every token occurs once, so that a token names its place."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 30, size=(2, number))
    firsts = 7 + np.cumsum(lengths).reshape(2, number) - lengths
    sources, targets = (
        memory_store([[[list(range(first, first + length))]] for first, length in zip(*side, strict=True)])
        for side in zip(firsts.tolist(), lengths.tolist(), strict=True)
    )
    return sources, targets


def objectives(memory_store: Any, random_store: Any, special: Any, seed: int = 9) -> list[Any]:
    return [
        PairObjective(*random_pairs(memory_store, seed), special, row_length=48, seed=seed),
        DenoisingObjective(random_store(seed), special, row_length=48, seed=seed, sentinels=SENTINELS),
    ]


@pytest.mark.parametrize("seed", range(10))
def test_an_epoch_of_pairs_holds_every_pair_exactly_once(
    seed: int, memory_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    sources, targets = random_pairs(memory_store, seed)
    row_length = int(np.random.default_rng(seed).integers(31, 90))
    objective = PairObjective(sources, targets, decoder_tokens(20_000), row_length=row_length, seed=seed)
    batch = objective.batch(0, all_keys(objective))

    assert set(batch) == NAMES
    assert all(tensor.shape == (objective.rows_in_epoch(0), row_length) for tensor in batch.values())
    pairs = [(sources.tokens(number).tolist(), targets.tolist()) for number, targets in enumerate(targets._tokens)]
    expected = [([*source, END], [BEGIN, *target], [*target, END]) for source, target in pairs]
    assert sorted(unpacked(batch)) == sorted(expected)
    assert (objective.num_empty, objective.num_too_long) == (0, 0)


def test_pairs_with_an_empty_or_too_long_side_are_left_out_and_counted(
    memory_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    lengths = [(3, 3), (0, 3), (3, 0), (0, 0), (7, 7), (8, 3), (3, 8), (0, 9)]
    sources, targets = (memory_store([[[[9] * pair[side]]] for pair in lengths]) for side in (0, 1))
    objective = PairObjective(sources, targets, decoder_tokens(50), row_length=8, seed=0)

    assert (objective.num_empty, objective.num_too_long) == (4, 2)
    found = unpacked(objective.batch(0, all_keys(objective)))
    assert sorted(len(source) for source, _, _ in found) == [4, 8]
    with pytest.raises(ValueError, match=r"pairs with both texts from 1 to 7 tokens \(0\) must be at least 1"):
        PairObjective(memory_store([[[[9] * 8]]]), memory_store([[[[9]]]]), decoder_tokens(50), row_length=8, seed=0)
    with pytest.raises(ValueError, match=r"targets \(1\) must be as many as sources \(8\); build both stores with"):
        PairObjective(sources, memory_store([[[[9]]]]), decoder_tokens(50), row_length=8, seed=0)


def test_the_tail_of_a_row_is_one_more_sequence_in_each_part_and_a_full_part_has_none(
    memory_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    store, full = memory_store([[[[10, 11, 12]]]]), memory_store([[[[20, 21, 22, 23, 24, 25, 26]]]])
    batch = PairObjective(store, full, decoder_tokens(50), row_length=8, seed=0).batch(0, [RowKey(0, 0)])
    assert batch["input_ids"].tolist() == [[10, 11, 12, END, PAD, PAD, PAD, PAD]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    assert batch["decoder_input_ids"].tolist() == [[BEGIN, 20, 21, 22, 23, 24, 25, 26]]
    assert batch["labels"].tolist() == [[20, 21, 22, 23, 24, 25, 26, END]]
    assert batch["decoder_position_ids"].tolist() == [list(range(8))]
    batch = PairObjective(full, store, decoder_tokens(50), row_length=8, seed=0).batch(0, [RowKey(0, 0)])
    assert batch["labels"].tolist() == [[10, 11, 12, END, *[IGNORED] * 4]]
    assert batch["decoder_position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]


def restored(source: list[int], labels: list[int]) -> list[int]:
    """Put the spans of the labels back for the sentinels of the source, one at a time."""
    assert source[-1] == labels[-1] == END
    spans: dict[int, list[int]] = {}
    for token in labels[:-1]:
        if token in SENTINELS:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    # The sentinels are the first ones, in order in both, and the last has no span.
    assert tuple(spans) == SENTINELS[: len(spans)]
    assert [token for token in source if token in SENTINELS] == list(spans)[:-1]
    assert spans.pop(list(spans)[-1]) == []
    assert all(spans.values())
    return [token for part in source[:-1] for token in spans.get(part, [part])]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("noise_share", "span_length"), [(0.15, 3.0), (0.5, 1.0), (0.02, 10.0), (0.9, 2.5)])
def test_the_spans_of_the_labels_put_back_for_the_sentinels_restore_the_corpus(
    seed: int, noise_share: float, span_length: float, random_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    store = random_store(seed)
    row_length = int(np.random.default_rng(seed).integers(12, 100))
    objective = DenoisingObjective(
        store,
        decoder_tokens(20_100),
        row_length=row_length,
        seed=seed,
        noise_share=noise_share,
        span_length=span_length,
        sentinels=SENTINELS,
    )
    batch = objective.batch(3, all_keys(objective))

    assert set(batch) == NAMES
    assert batch["input_ids"].shape[1] == objective.row_length == row_length
    assert batch["labels"].shape[1] == objective.target_row_length
    segments = []
    for source, decoder_input, labels in unpacked(batch):
        assert decoder_input == [BEGIN, *labels[:-1]]
        segments.append(restored(source, labels))
    # A token occurs once in the corpus, so segments sort into its order; those of one token are not among them.
    tokens = Counter(token for document in range(store.num_documents) for token in store.tokens(document).tolist())
    found = Counter(token for segment in segments for token in segment)
    assert all(segment == list(range(segment[0], segment[0] + len(segment))) for segment in segments)
    assert not found - tokens
    assert (tokens - found).total() == objective.num_too_short


def test_segments_are_of_whole_sentences_and_their_noise_is_as_asked(
    random_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    store = random_store(1, num_documents=300)
    objective = DenoisingObjective(store, decoder_tokens(20_100), row_length=128, seed=0, sentinels=SENTINELS)
    found = unpacked(objective.batch(0, all_keys(objective)))
    starts = {
        int(token)
        for document in range(store.num_documents)
        for token in store.tokens(document)[(store.flags(document) & 2) != 0]
    }
    assert {restored(source, labels)[0] for source, _, labels in found} <= starts

    num_spans = np.array([sum(token in SENTINELS for token in source) for source, _, _ in found])
    num_noise = np.array([len(labels) - 2 for _, _, labels in found]) - num_spans
    num_tokens = np.array([len(source) - 1 for source, _, _ in found]) - num_spans + num_noise
    assert num_noise.sum() / num_tokens.sum() == pytest.approx(0.15, abs=0.005)
    assert num_noise.sum() / num_spans.sum() == pytest.approx(3.0, abs=0.1)
    assert np.abs(num_noise - 0.15 * num_tokens).max() <= 0.85


def test_every_division_into_spans_and_stretches_is_as_likely_as_any_other() -> None:
    # 8 tokens with 4 of noise in 2 spans: 3 ways to divide the noise, and 3 to divide the rest.
    noise = SpanNoise(0.5, 2.0)
    generator = np.random.default_rng(0)
    drawn = Counter(
        tuple(noise.is_noise(generator.integers(0, 2**64, 8, np.uint64)).astype(int).tolist()) for _ in range(9000)
    )
    assert len(drawn) == 9
    assert all(sum(mask) == 4 and mask[0] == 0 and mask[-1] == 1 for mask in drawn)
    assert all(count == pytest.approx(1000, abs=150) for count in drawn.values())


@pytest.mark.parametrize("share_of_noise", [0.01, 0.15, 0.5, 0.95])
@pytest.mark.parametrize("span_length", [1.0, 3.0, 50.0])
def test_the_longest_segment_is_the_longest_that_fits_and_its_lengths_are_those_drawn(
    share_of_noise: float, span_length: float
) -> None:
    noise = SpanNoise(share_of_noise, span_length)

    def needed(length: int) -> int:
        num_noise, num_spans = (int(count[0]) for count in noise.counts(np.array([length])))
        return length - num_noise + num_spans + 1

    for row_length in (8, 31, 64):
        longest = noise.longest_segment(row_length)
        assert needed(longest) <= row_length < min(map(needed, range(longest + 1, longest + 200)))
    for length in range(2, 90):
        mask = noise.is_noise(np.random.default_rng(length).integers(0, 2**64, length, np.uint64))
        num_spans = int((np.diff(mask.astype(int)) == 1).sum())
        assert ([int(mask.sum())], [num_spans]) == tuple(count.tolist() for count in noise.counts(np.array([length])))


def test_t5s_own_figures_for_rows_of_512_are_found() -> None:
    # T5 fills 512 encoder positions from 568 tokens and calls for 114 decoder positions; its code has no last sentinel.
    noise = SpanNoise(0.15, 3.0)
    assert noise.longest_segment(512) == 568
    num_noise, num_spans = (int(count[0]) for count in noise.counts(np.array([568])))
    assert num_noise + num_spans + 1 == 114


def test_decoder_rows_are_as_long_as_their_share_of_the_tokens_and_hold_the_longest_segment(
    random_store: Callable[..., Store], memory_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    special = decoder_tokens(20_100)
    common = {"row_length": 128, "seed": 0, "sentinels": SENTINELS}
    objective = DenoisingObjective(random_store(2, num_documents=400), special, **common)
    figures = objective.describe()
    batch = objective.batch(0, all_keys(objective))
    tokens = {name: int((batch[name] != PAD).sum()) for name in ("input_ids", "decoder_input_ids")}
    assert tokens["decoder_input_ids"] == int((batch["labels"] != IGNORED).sum())
    alike = 128 * tokens["decoder_input_ids"] / tokens["input_ids"]
    assert objective.target_row_length == 8 * int(np.ceil(alike / 8))
    assert objective.positions_per_row == 128 + objective.target_row_length
    assert figures.num_tokens == sum(tokens.values())
    assert figures.wasted_share == pytest.approx(1 - figures.num_tokens / (len(batch["labels"]) * (128 + 40)))
    assert figures.num_sequences == len(unpacked(batch))

    long = memory_store([[[[token] for token in range(10, 500)]]])
    assert DenoisingObjective(long, special, **common).target_row_length == 32
    assert DenoisingObjective(long, special, **common, target_row_length=50).target_row_length == 50
    with pytest.raises(ValueError, match=r"target_row_length \(20\) must be at least 30 for row_length \(128\)"):
        DenoisingObjective(long, special, **common, target_row_length=20)


def test_a_row_is_the_same_in_any_company_so_processes_together_make_the_same_step(
    memory_store: Callable[..., Store], random_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    for objective in objectives(memory_store, random_store, decoder_tokens(20_100)):
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


def test_spans_differ_by_step_by_seed_and_by_epoch_and_evaluation_has_its_own(
    random_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    def objective(seed: int) -> DenoisingObjective:
        return DenoisingObjective(
            random_store(7), decoder_tokens(20_100), row_length=64, seed=seed, sentinels=SENTINELS
        )

    first = objective(0)
    drawn = [
        first.batch(0, [RowKey(0, 0)]),
        first.batch(1, [RowKey(0, 0)]),
        first.batch(0, [RowKey(1, 0)]),
        objective(1).batch(0, [RowKey(0, 0)]),
        next(first.evaluation_batches(1)),
    ]
    assert len({str(batch["labels"].tolist()) for batch in drawn}) == len(drawn)
    assert torch.equal(objective(0).batch(1, [RowKey(0, 0)])["labels"], drawn[1]["labels"])


def test_evaluation_goes_through_every_row_once_the_same_way_each_time(
    memory_store: Callable[..., Store], random_store: Callable[..., Store], decoder_tokens: Special
) -> None:
    for objective in objectives(memory_store, random_store, decoder_tokens(20_100)):
        batches = list(objective.evaluation_batches(4))
        assert sum(len(batch["labels"]) for batch in batches) == objective.rows_in_epoch(0)
        assert sum(len(unpacked(batch)) for batch in batches) == objective.describe().num_sequences
        for batch, again in zip(batches, objective.evaluation_batches(4), strict=True):
            assert all(torch.equal(batch[name], again[name]) for name in NAMES)


def test_the_figures_of_pairs_count_both_parts(memory_store: Callable[..., Store], decoder_tokens: Special) -> None:
    sources, targets = random_pairs(memory_store, 4)
    objective = PairObjective(sources, targets, decoder_tokens(20_000), row_length=64, seed=0)
    figures = objective.describe(5)
    assert figures.num_sequences == sources.num_documents
    assert figures.num_tokens == sources.num_tokens + targets.num_tokens + 2 * sources.num_documents
    assert (objective.target_row_length, objective.positions_per_row) == (64, 128)
    assert figures.wasted_share == pytest.approx(1 - figures.num_tokens / (128 * objective.rows_in_epoch(0)))


def test_mistakes_are_named(
    memory_store: Callable[..., Store], random_store: Callable[..., Store], decoder_tokens: Special, encoder_tokens: Any
) -> None:
    store, special = random_store(0), decoder_tokens(20_100)
    common = {"row_length": 64, "seed": 0, "sentinels": SENTINELS}
    with pytest.raises(ValueError, match=r"end token \(None\) must exist; use an encoder-decoder tokenizer"):
        PairObjective(store, store, encoder_tokens(20_100), row_length=64, seed=0)
    with pytest.raises(ValueError, match=r"end token \(None\) must exist; use an encoder-decoder tokenizer"):
        DenoisingObjective(store, encoder_tokens(20_100), **common)
    for objective in (
        lambda: PairObjective(store, store, special, row_length=7, seed=0),
        lambda: DenoisingObjective(store, special, row_length=7, seed=0, sentinels=SENTINELS),
    ):
        with pytest.raises(ValueError, match=r"row_length \(7\) must be at least 8"):
            objective()
    for noise_share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"noise_share \(.*\) must be between 0 and 1"):
            DenoisingObjective(store, special, **common, noise_share=noise_share)
    with pytest.raises(ValueError, match=r"span_length \(0.5\) must be at least 1"):
        DenoisingObjective(store, special, **common, span_length=0.5)
    with pytest.raises(ValueError, match=r"sentinels \(3\) must be at least 4 for row_length \(64\)"):
        DenoisingObjective(store, special, row_length=64, seed=0, sentinels=SENTINELS[:3])
    with pytest.raises(ValueError, match=r"sentinels \(10\) must differ from one another"):
        DenoisingObjective(store, special, row_length=64, seed=0, sentinels=SENTINELS[:1] * 10)
    with pytest.raises(ValueError, match=r"segments of at least 2 tokens \(0\) must be at least 1"):
        DenoisingObjective(memory_store([[[[7]]]]), special, **common)
    with pytest.raises(ValueError, match=r"seed \(-1\) must be from 0"):
        PairObjective(store, store, special, row_length=128, seed=-1)
