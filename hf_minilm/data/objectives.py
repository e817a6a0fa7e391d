"""Training objectives: a tokenised corpus into rows, and rows into batches.

A row is `row_length` token positions that hold several sequences; `position_ids` restart at 0 with each, and its
unused tail is one more sequence, of padding. A batch is a pure function of (seed, step, rows): a row comes out the
same whatever other rows it is asked for with, so that any division of a step among processes gives the same batch.

Shape letters: B rows of a batch, T token positions of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .cutting import cut_documents, find_sentences
from .draws import Purpose, random_bits
from .masking import Masking
from .next_sentence import check_pairs_possible, draw_pairs
from .order import RowKey
from .packing import Packing, pack
from .sequences import IGNORED, Sequences
from .store import WORD_START
from .tokenizer import begin_token

if TYPE_CHECKING:
    from .store import TokenStore
    from .tokenizer import SpecialTokens

Batch = dict[str, torch.Tensor]

# Masks of an evaluation are drawn as if at this step, which no training run reaches.
EVALUATION_STEP = 2**63
SHORTEST_ROW = 8
"""Fewest token positions of a row."""


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """What an epoch consists of.

    Attributes:
        num_sequences: Sequences in all rows.
        num_rows: Rows.
        num_tokens: Token positions in use, special tokens included.
        wasted_share: The share of token positions that hold padding, from 0 to 1.
        labelled_share: The share of sequences with a next-sentence label, from 0 to 1; 0 without that objective.
    """

    num_sequences: int
    num_rows: int
    num_tokens: int
    wasted_share: float
    labelled_share: float


class Objective(Protocol):
    """What training and evaluation ask of an objective."""

    row_length: int
    positions_per_row: int  # token positions of a row over all its parts

    def rows_in_epoch(self, epoch: int) -> int:
        """Return how many rows an epoch has."""

    def batch(self, step: int, rows: Sequence[RowKey]) -> Batch:
        """Return the batch of these rows at a step, int64 tensors [B, T]."""

    def evaluation_batches(self, rows_per_batch: int) -> Iterator[Batch]:
        """Iterate over the first epoch's rows, each once, mixed, always the same: order, masks and all else."""
        return all_rows(self, rows_per_batch)

    def describe(self, epoch: int = 0) -> EpochFigures:
        """Return the figures of an epoch, over all parts of its rows."""


class PackedOnce(Objective):
    """An objective whose rows are the same in each epoch; `_packing` says what is in them."""

    _packing: Packing

    def rows_in_epoch(self, epoch: int) -> int:  # noqa: ARG002 (the protocol's signature)
        """Return how many rows an epoch has."""
        return self._packing.num_rows

    def describe(self, epoch: int = 0) -> EpochFigures:  # noqa: ARG002 (the protocol's signature)
        """Return the figures of an epoch, over all parts of its rows."""
        return figures_of(self._packing)


class CausalObjective(PackedOnce):
    """Predict the next token of packed documents: `<s> tokens </s>`, the packing the same each epoch.

    A document that is longer than a row fills whole rows and leaves a last piece to be packed: nothing else wastes
    as little. Only its first piece begins with <s>, and only its last ends with </s>; a last piece of less than an
    eighth of a row takes tokens from the piece before, so that it has some context to predict from.

    Args:
        store: The tokenised corpus.
        special: The tokenizer's special tokens. The end is needed, and stands for a begin or padding that is not there.
        row_length: Token positions of a row, at least 8.
        seed: The run's seed; here it decides which documents of equal length share a row.

    Raises:
        ValueError: If the tokenizer has no </s>, or an argument is out of range.
    """

    def __init__(self, store: "TokenStore", special: "SpecialTokens", *, row_length: int, seed: int) -> None:
        check_row_length(row_length)
        self._end = required(special.end, "end token", kind="a decoder")
        self._begin = begin_token(special)
        self._pad = self._end if special.pad is None else special.pad
        self.store, self.special, self.seed = store, special, seed
        self.row_length = self.positions_per_row = row_length
        self._documents, self._starts, self._lengths = _causal_pieces(store.lengths, row_length)
        self._packing = _pack_at_random(self._lengths, row_length, seed=seed, epoch=0)

    def batch(self, step: int, rows: Sequence[RowKey]) -> Batch:  # noqa: ARG002 (nothing here is drawn by step)
        """Return input_ids, position_ids and labels of these rows, [B, T].

        Labels are the tokens themselves, not shifted, and -100 at each sequence's first token and on padding: after
        the model's shift no token is predicted from another sequence.
        """
        shape = len(rows), self.row_length
        input_ids = np.full(shape, self._pad, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        starts = np.zeros(shape, np.bool_)
        for index, key in enumerate(rows):
            cursor = 0
            for piece in self._packing.row(key.row).tolist():
                stop = cursor + int(self._lengths[piece])
                self._write_piece(piece, input_ids[index, cursor:stop])
                labels[index, cursor + 1 : stop] = input_ids[index, cursor + 1 : stop]
                starts[index, cursor] = True
                cursor = stop
            starts[index, cursor:][:1] = True
        return tensors(input_ids=input_ids, position_ids=restarting_positions(starts), labels=labels)

    def _write_piece(self, piece: int, row: NDArray[np.int64]) -> None:
        """Write a piece of `<s> tokens </s>`, of which it is `start` to `start + len(row)`, into its part of a row."""
        tokens = self.store.tokens(int(self._documents[piece]))
        start = int(self._starts[piece])
        stop = start + len(row)
        first, last = 0, len(row)
        if start == 0:
            row[0], first = self._begin, 1
        if stop == len(tokens) + 2:
            row[-1], last = self._end, last - 1
        row[first:last] = tokens[start + first - 1 : start + last - 1]


@dataclass(frozen=True, slots=True)
class _Epoch:
    """The sequences of an epoch and the rows they stand in."""

    sequences: Sequences
    packing: Packing


class MaskedObjective(Objective):
    """Restore masked tokens, and with `next_sentence` tell whether a pair's second segment continues the first.

    Without next sentences a sequence is `[CLS] text [SEP]` and the packing is the same each epoch; with them it is
    `[CLS] A [SEP] B [SEP]`, and the pairs are drawn anew each epoch (see `next_sentence`). A document that fits into a
    sequence stays whole; a longer one fills sequence after sequence, cut before a word (see `cutting`), and what is
    left of it shares a row with others. So nearly all positions hold text: `describe().wasted_share` says how many do
    not. Masks are drawn from (seed, step, row).

    Args:
        store: The tokenised corpus.
        special: The tokenizer's special tokens; classify, separate, mask and pad are needed.
        row_length: Token positions of a row, at least 8.
        seed: The run's seed.
        mask_rate: The share of tokens to predict, above 0 and up to 1.
        mask_share: The share of those that become [MASK].
        random_share: The share of those that become a random token; the rest stay.
        whole_word: Whether the tokens of a word are selected together, whatever the tokenizer.
        next_sentence: Whether to make pairs with a next-sentence label.
        max_sequence_length: Most tokens of a sequence with its special tokens, from 8 to `row_length`, which is the
            default. Several shorter sequences fill a long row better than a single long one does.
        short_share: The share of pairs that aim at a random shorter length, from 0 to 1.

    Raises:
        ValueError: If the tokenizer lacks a token, an argument is out of range, or next sentences are asked for and
            fewer than two documents have two sentences, or none fit into a sequence.
    """

    def __init__(
        self,
        store: "TokenStore",
        special: "SpecialTokens",
        *,
        row_length: int,
        seed: int,
        mask_rate: float = 0.15,
        mask_share: float = 0.8,
        random_share: float = 0.1,
        whole_word: bool = True,
        next_sentence: bool = False,
        max_sequence_length: int | None = None,
        short_share: float = 0.1,
    ) -> None:
        check_row_length(row_length)
        self.max_sequence_length = row_length if max_sequence_length is None else max_sequence_length
        if not SHORTEST_ROW <= self.max_sequence_length <= row_length:
            raise ValueError(
                f"max_sequence_length ({max_sequence_length}) must be from {SHORTEST_ROW} to row_length "
                f"({row_length}); leave it out to use whole rows."
            )
        if not 0 <= short_share <= 1:
            raise ValueError(f"short_share ({short_share}) must be from 0 to 1; 0.1 is usual.")
        self.masking = Masking(
            special, mask_rate=mask_rate, mask_share=mask_share, random_share=random_share, whole_word=whole_word
        )
        self._classify = required(special.classify, "classification token", kind="an encoder")
        self._separate = required(special.separate, "separator token", kind="an encoder")
        self._pad = required(special.pad, "padding token", kind="an encoder")
        self.store, self.special, self.seed = store, special, seed
        self.row_length = self.positions_per_row = row_length
        self.next_sentence, self.short_share = next_sentence, short_share
        self._longest_text = self.max_sequence_length - (3 if next_sentence else 2)
        self._sentences = find_sentences(store)
        if next_sentence:
            check_pairs_possible(self._sentences)
        self._epochs: dict[int, _Epoch] = {}
        self._plan(0)
        if next_sentence and self.describe().labelled_share == 0:
            raise ValueError(
                f"next-sentence pairs (0) must be at least 1 with sequences of {self.max_sequence_length} tokens; "
                "give more documents or a longer max_sequence_length."
            )

    def rows_in_epoch(self, epoch: int) -> int:
        """Return how many rows an epoch has; with next sentences epochs differ a little."""
        return self._plan(epoch).packing.num_rows

    def batch(self, step: int, rows: Sequence[RowKey]) -> Batch:
        """Return input_ids, position_ids, token_type_ids, labels and maybe next_sentence_label of these rows, [B, T].

        Labels are the original tokens at selected positions and -100 elsewhere. `next_sentence_label` stands at each
        pair's first token ([CLS]): 0 the next sentences, 1 those of another document; it is -100 at all other
        positions, and at the [CLS] of a sequence that is no pair.
        """
        shape = len(rows), self.row_length
        input_ids = np.full(shape, self._pad, np.int64)
        token_types = np.zeros(shape, np.int64)
        pair_labels = np.full(shape, IGNORED, np.int64)
        word_starts, sequence_starts = np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
        for index, key in enumerate(rows):
            epoch = self._plan(key.epoch)
            cursor = 0
            for *segments, label in epoch.sequences.rows(epoch.packing.row(key.row)):
                sequence_starts[index, cursor] = True
                pair_labels[index, cursor] = label
                cursor = self._write_sequence(
                    segments, cursor, input_ids[index], token_types[index], word_starts[index]
                )
            sequence_starts[index, cursor:][:1] = True
        corrupted, labels = self._mask(step, rows, input_ids, word_starts, sequence_starts)
        batch = tensors(
            input_ids=corrupted,
            position_ids=restarting_positions(sequence_starts),
            token_type_ids=token_types,
            labels=labels,
        )
        return batch | tensors(next_sentence_label=pair_labels) if self.next_sentence else batch

    def describe(self, epoch: int = 0) -> EpochFigures:
        """Return the figures of an epoch."""
        plan = self._plan(epoch)
        labelled_share = float((plan.sequences.label != IGNORED).mean()) if len(plan.sequences.label) else 0.0
        return figures_of(plan.packing, labelled_share=labelled_share)

    def _plan(self, epoch: int) -> _Epoch:
        """Return an epoch's sequences and rows; without next sentences there is one plan for all epochs."""
        epoch = epoch if self.next_sentence else 0
        if epoch not in self._epochs:
            sequences = self._draw(epoch)
            packing = _pack_at_random(sequences.lengths, self.row_length, seed=self.seed, epoch=epoch)
            # Two are kept, for the step that straddles two epochs.
            self._epochs = {key: self._epochs[key] for key in list(self._epochs)[-1:]} | {
                epoch: _Epoch(sequences, packing)
            }
        return self._epochs[epoch]

    def _draw(self, epoch: int) -> Sequences:
        """Cut an epoch's sequences."""
        text = self.store, self._sentences, self._longest_text
        if self.next_sentence:
            return draw_pairs(*text, seed=self.seed, epoch=epoch, short_share=self.short_share)
        return Sequences.of_one_segment(cut_documents(*text, seed=self.seed, epoch=epoch))

    def _write_sequence(
        self,
        segments: list[int],
        cursor: int,
        input_ids: NDArray[np.int64],
        token_types: NDArray[np.int64],
        word_starts: NDArray[np.bool_],
    ) -> int:
        """Write one sequence into a row from position `cursor` on, and return the position after it."""
        input_ids[cursor] = self._classify
        cursor += 1
        for token_type, at in enumerate((0, 3)):
            document, start, length = segments[at : at + 3]
            if length:
                stop = cursor + length
                input_ids[cursor:stop] = self.store.tokens(document)[start : start + length]
                word_starts[cursor:stop] = self.store.flags(document)[start : start + length] & WORD_START
                input_ids[stop] = self._separate
                token_types[cursor : stop + 1] = token_type
                cursor = stop + 1
        return cursor

    def _mask(
        self,
        step: int,
        rows: Sequence[RowKey],
        input_ids: NDArray[np.int64],
        word_starts: NDArray[np.bool_],
        sequence_starts: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Mask a batch, every row with its own random words, and return the input and the labels, [B, T]."""
        bits = np.empty((len(rows), 2, self.row_length), np.uint64)
        for index, key in enumerate(rows):
            drawn = random_bits(self.seed, Purpose.MASKS, counter=(step, *key), size=2 * self.row_length)
            bits[index] = drawn.reshape(2, self.row_length)
        corrupted, labels = self.masking.apply(
            input_ids.reshape(-1),
            word_starts=word_starts.reshape(-1),
            sequence_starts=sequence_starts.reshape(-1),
            word_bits=bits[:, 0].reshape(-1),
            token_bits=bits[:, 1].reshape(-1),
        )
        return corrupted.reshape(input_ids.shape), labels.reshape(input_ids.shape)


def _causal_pieces(
    num_tokens: NDArray[np.int64], row_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut `<s> tokens </s>` of each document into pieces of at most a row: document, start and length of each."""
    documents = np.flatnonzero(num_tokens)
    totals = num_tokens[documents].astype(np.int64) + 2
    num_pieces = -(-totals // row_length)
    document = np.repeat(np.arange(len(documents)), num_pieces)
    last_of_document = np.cumsum(num_pieces) - 1
    place = np.arange(len(document)) - np.repeat(last_of_document + 1 - num_pieces, num_pieces)
    starts = place * row_length
    shortest_last = max(2, row_length // 8)
    shortage = np.maximum(0, shortest_last - (totals - starts[last_of_document]))
    starts[last_of_document] -= np.where(num_pieces > 1, shortage, 0)
    stops = np.append(starts[1:], 0)
    stops[last_of_document] = totals
    return documents[document], starts, stops - starts


def _pack_at_random(lengths: NDArray[np.int64], row_length: int, *, seed: int, epoch: int) -> Packing:
    """Pack sequences into rows, those of equal length in random order."""
    tie_breakers = random_bits(seed, Purpose.PACKING, counter=(0, epoch, 0), size=len(lengths))
    return pack(lengths, row_length, tie_breakers=tie_breakers)


def restarting_positions(starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count positions from 0 at each start; every row begins with one, [B, T]."""
    positions = np.arange(starts.shape[1])
    return positions - np.maximum.accumulate(np.where(starts, positions, 0), axis=1)


def all_rows(objective: Objective, rows_per_batch: int) -> Iterator[Batch]:
    """Iterate over the batches of the first epoch's rows, as `Objective.evaluation_batches`.

    Packing puts the longest sequences into the first rows, and an evaluation may look at the first rows only: mixed,
    they stand for all.
    """
    if rows_per_batch < 1:
        raise ValueError(f"rows_per_batch ({rows_per_batch}) must be at least 1; give the rows of one batch.")
    num_rows = objective.rows_in_epoch(0)
    mixed = np.argsort(random_bits(0, Purpose.ORDER, counter=(EVALUATION_STEP, 0, 0), size=num_rows), kind="stable")
    for start in range(0, num_rows, rows_per_batch):
        rows = [RowKey(0, row) for row in mixed[start : start + rows_per_batch].tolist()]
        yield objective.batch(EVALUATION_STEP, rows)


def figures_of(packing: Packing, *, labelled_share: float = 0.0) -> EpochFigures:
    """Return the figures of an epoch from its packing."""
    return EpochFigures(len(packing.pieces), packing.num_rows, packing.num_tokens, packing.wasted_share, labelled_share)


def tensors(**arrays: NDArray[np.int64]) -> Batch:
    """Return the arrays as a batch."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def check_row_length(row_length: int) -> None:
    """Raise ValueError if a row is too short to hold anything."""
    if row_length < SHORTEST_ROW:
        raise ValueError(f"row_length ({row_length}) must be at least {SHORTEST_ROW}; 128 to 2048 is usual.")


def required(token: int | None, name: str, *, kind: str) -> int:
    """Return a special token; raises ValueError where the tokenizer has none, and names the kind that has one."""
    if token is None:
        raise ValueError(f"the tokenizer's {name} (None) must exist; use {kind} tokenizer.")
    return token
