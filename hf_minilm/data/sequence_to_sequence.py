"""Training objectives of an encoder-decoder: text pairs, and spans of a text to restore, packed into rows.

A row has two parts: `row_length` token positions of the encoder, and `target_row_length` of the decoder. Sequence k of
the one part belongs to sequence k of the other. In each part `position_ids` restart at 0 with every sequence, and the
unused tail is one more sequence, of padding. A batch is a pure function of (seed, step, rows), as in `objectives`.

Shape letters: B rows of a batch, S encoder positions of a row, T decoder positions of a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cutting import cut_documents, find_sentences
from .draws import Purpose, random_bits
from .objectives import (
    Batch,
    PackedOnce,
    check_row_length,
    required,
    restarting_positions,
    tensors,
)
from .order import RowKey
from .packing import Packing
from .packing_pairs import pack_pairs
from .sequences import IGNORED, Segments

if TYPE_CHECKING:
    from .store import TokenStore
    from .tokenizer import SpecialTokens

# What the encoder reads, and the labels of the decoder: both with their special tokens.
_Sequence = tuple[NDArray[np.int64], NDArray[np.int64]]
_TILE = 8  # tensor cores work on multiples of this


class PairObjective(PackedOnce):
    """Write a text's partner: packed pairs, the packing the same each epoch.

    The encoder reads `source </s>`; the decoder reads `<s> target` and has `target </s>` to predict. A pair with an
    empty side, or with a side that does not fit into a row with its special token, is left out.

    Args:
        sources: The tokenised sources.
        targets: The tokenised targets, number i that of source i: a store that keeps its empty documents.
        special: The tokenizer's special tokens; begin, end and pad are needed.
        row_length: Token positions of a row for the encoder, and as many for the decoder, at least 8.
        seed: The run's seed; here it decides which pairs of equal lengths share a row.

    Attributes:
        pairs: The numbers of the pairs that are not left out, ascending, int64.
        num_empty: Pairs left out for an empty side.
        num_too_long: Pairs left out for a side that is too long.

    Raises:
        ValueError: If the stores differ in their number of documents, no pair is left, the tokenizer lacks a token, or
            an argument is out of range.
    """

    def __init__(
        self,
        sources: "TokenStore",
        targets: "TokenStore",
        special: "SpecialTokens",
        *,
        row_length: int,
        seed: int,
    ) -> None:
        check_row_length(row_length)
        if sources.num_documents != targets.num_documents:
            raise ValueError(
                f"targets ({targets.num_documents}) must be as many as sources ({sources.num_documents}); "
                "build both stores with keep_empty."
            )
        self._parts = _Parts(special, row_length, row_length)
        self.sources, self.targets, self.special, self.seed = sources, targets, special, seed
        self.row_length = self.target_row_length = row_length
        self.positions_per_row = 2 * row_length
        lengths = np.stack([sources.lengths, targets.lengths])
        empty = lengths.min(axis=0) == 0
        kept = ~empty & (lengths.max(axis=0) < row_length)
        self.num_empty = int(empty.sum())
        self.num_too_long = len(kept) - self.num_empty - int(kept.sum())
        self.pairs = np.flatnonzero(kept)
        if not len(self.pairs):
            raise ValueError(
                f"pairs with both texts from 1 to {row_length - 1} tokens (0) must be at least 1; "
                "give more pairs or a longer row_length."
            )
        self._packing = self._parts.pack(*(lengths[:, kept] + 1), seed=seed)

    def batch(self, step: int, rows: Sequence[RowKey]) -> Batch:  # noqa: ARG002 (nothing here is drawn by step)
        """Return input_ids, position_ids [B, S], decoder_input_ids, decoder_position_ids and labels [B, T].

        Labels are aligned with the decoder's input, not to be shifted: each is what its position has to predict. They
        are -100 on padding.
        """
        return self._parts.batch([map(self._sequence, self._packing.row(key.row).tolist()) for key in rows])

    def _sequence(self, piece: int) -> _Sequence:
        pair = int(self.pairs[piece])
        return self._parts.ended(self.sources.tokens(pair)), self._parts.ended(self.targets.tokens(pair))


class DenoisingObjective(PackedOnce):
    """Restore spans that are missing from a text: the span corruption of T5, the packing the same each epoch.

    Raffel et al. 2020 (arXiv 1910.10683), section 3.1.4 and figure 2. A segment is a document, or where that does not
    fit a part of it (see `cutting`). The encoder reads a segment with each span replaced by the next sentinel, then
    </s>; the decoder has `sentinel span sentinel span ... sentinel </s>` to predict, and reads that behind <s> without
    its last token. The last sentinel, which ends the last span, is that of the figure; T5's code leaves it out.

    Spans are drawn from (seed, step, row) as T5's `random_spans_noise_mask` does: of a segment's n tokens
    `round(noise_share * n)` are noise, at least one and not all, in `round(noise / span_length)` spans, at least one.
    The lengths of the spans, and of the stretches between them, are random, each division of the tokens into that many
    parts as likely as any other. A segment begins with a stretch that stays and ends with a span. So both lengths of
    its sequences follow from n alone, and rows can be packed before anything is drawn.

    Without `target_row_length` the decoder's part of a row is to the encoder's as the decoder's tokens are to the
    encoder's in this store, so that both parts fill alike; but at least as long as the longest segment needs, and a
    multiple of 8. With the usual shares it is about a quarter of `row_length`, and more where segments are short.

    Args:
        store: The tokenised corpus.
        special: The tokenizer's special tokens; begin, end and pad are needed.
        row_length: Token positions of a row for the encoder, at least 8.
        seed: The run's seed.
        noise_share: The share of a segment's tokens that are missing, between 0 and 1.
        span_length: How many tokens a span has on average, at least 1.
        sentinels: The ids of the sentinels, in order, see `tokenizer.sentinel_ids`; a segment needs one for each span
            and one more.
        target_row_length: Token positions of a row for the decoder.

    Attributes:
        num_too_short: Segments left out because they have fewer than 2 tokens.

    Raises:
        ValueError: If no segment is left, there are too few sentinels, the tokenizer lacks a token, or an argument is
            out of range.
    """

    def __init__(
        self,
        store: "TokenStore",
        special: "SpecialTokens",
        *,
        row_length: int,
        seed: int,
        sentinels: Sequence[int],
        noise_share: float = 0.15,
        span_length: float = 3.0,
        target_row_length: int | None = None,
    ) -> None:
        check_row_length(row_length)
        self._noise = SpanNoise(noise_share, span_length)
        self.store, self.special, self.seed, self.row_length = store, special, seed, row_length
        self._sentinels = np.array(sentinels, np.int64)
        self._segments, self.num_too_short = _segments(store, self._noise.longest_segment(row_length), seed=seed)
        num_noise, num_spans = self._noise.counts(self._segments.length)
        most = int(num_spans.max()) + 1
        if len(sentinels) < most:
            raise ValueError(
                f"sentinels ({len(sentinels)}) must be at least {most} for row_length ({row_length}); "
                "train the tokenizer with more, or shorten the rows."
            )
        if len(set(sentinels)) < len(sentinels):
            raise ValueError(f"sentinels ({len(sentinels)}) must differ from one another; see tokenizer.sentinel_ids.")
        lengths = self._segments.length - num_noise + num_spans + 1, num_noise + num_spans + 2
        self.target_row_length = _target_row_length(*lengths, row_length, target_row_length)
        self.positions_per_row = row_length + self.target_row_length
        self._parts = _Parts(special, row_length, self.target_row_length)
        self._packing = self._parts.pack(*lengths, seed=seed)

    def batch(self, step: int, rows: Sequence[RowKey]) -> Batch:
        """Return input_ids, position_ids [B, S], decoder_input_ids, decoder_position_ids and labels [B, T].

        Labels are aligned with the decoder's input, not to be shifted: each is what its position has to predict. They
        are -100 on padding.
        """
        return self._parts.batch([self._sequences(step, key) for key in rows])

    def _sequences(self, step: int, key: RowKey) -> Iterator[_Sequence]:
        segments = self._segments.take(self._packing.row(key.row))
        size = int(segments.length.sum())
        bits = random_bits(self.seed, Purpose.SPANS, counter=(step, *key), size=size)
        pieces = zip(segments.document.tolist(), segments.start.tolist(), segments.length.tolist(), strict=True)
        for document, start, length in pieces:
            tokens = self.store.tokens(document)[start : start + length].astype(np.int64)
            drawn, bits = bits[:length], bits[length:]
            yield self._divide(tokens, self._noise.is_noise(drawn))

    def _divide(self, tokens: NDArray[np.int64], is_noise: NDArray[np.bool_]) -> _Sequence:
        """Write a sentinel for each span, and the other way round for each stretch between spans."""
        begins = np.diff(is_noise, prepend=not is_noise[0])  # of spans and stretches
        # Both take turns, a stretch first: span k and the stretch before it have sentinel k.
        sentinels = self._sentinels[(np.cumsum(begins) - 1) // 2]
        source = np.where(is_noise, sentinels, tokens)[~is_noise | begins]
        labels = np.where(is_noise, tokens, sentinels)[is_noise | begins]
        last = self._sentinels[int(begins.sum()) // 2]
        return self._parts.ended(source), self._parts.ended(np.append(labels, last))


class SpanNoise:
    """How many tokens of a segment are noise, and which; a pure function of its length and of random words.

    Args:
        share: The share of tokens that are noise, between 0 and 1.
        span_length: How many tokens a span has on average, at least 1.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, share: float, span_length: float) -> None:
        if not 0 < share < 1:
            raise ValueError(f"noise_share ({share}) must be between 0 and 1; 0.15 is usual.")
        if not span_length >= 1:
            raise ValueError(f"span_length ({span_length}) must be at least 1; 3 is usual.")
        self.share, self.span_length = share, span_length

    def counts(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many tokens are noise, and in how many spans, for segments of at least 2 tokens."""
        num_noise = np.clip(np.rint(lengths * self.share).astype(np.int64), 1, lengths - 1)
        num_spans = np.maximum(np.rint(num_noise / self.span_length).astype(np.int64), 1)
        # T5 leaves this case open: there is a stretch before each span, and it has at least one token.
        return num_noise, np.minimum(num_spans, lengths - num_noise)

    def longest_segment(self, row_length: int) -> int:
        """Return how many tokens a segment may have that leaves at most `row_length` to the encoder, </s> included."""
        # What is left grows with the segment. The share left without sentinels bounds it.
        lengths = np.arange(2, int(row_length / (1 - self.share)) + 2)
        num_noise, num_spans = self.counts(lengths)
        return int(lengths[lengths - num_noise + num_spans + 1 <= row_length].max())

    def is_noise(self, bits: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Draw which tokens of a segment are noise from one random word a token, [length]."""
        num_noise, num_spans = (int(count[0]) for count in self.counts(np.array([len(bits)])))
        spans = _random_parts(num_noise, num_spans, bits[:num_noise])
        stretches = _random_parts(len(bits) - num_noise, num_spans, bits[num_noise:])
        lengths = np.stack([stretches, spans], axis=1).reshape(-1)
        return np.repeat(np.arange(2 * num_spans) % 2 == 1, lengths)


class _Parts:
    """The two parts of every row, and how sequences are packed and written into them."""

    def __init__(self, special: "SpecialTokens", row_length: int, target_row_length: int) -> None:
        self._end = required(special.end, "end token", kind="an encoder-decoder")
        self._pad = required(special.pad, "padding token", kind="an encoder-decoder")
        self._begin = self._pad if special.begin is None else special.begin  # as T5's decoder, and our configuration
        self._row_length, self._target_row_length = row_length, target_row_length

    def pack(self, lengths: NDArray[np.int64], target_lengths: NDArray[np.int64], *, seed: int) -> Packing:
        """Pack sequences, those of equal lengths in random order."""
        tie_breakers = random_bits(seed, Purpose.PACKING, counter=(0, 0, 0), size=len(lengths))
        capacities = self._row_length, self._target_row_length
        return pack_pairs(lengths, target_lengths, *capacities, tie_breakers=tie_breakers)

    def ended(self, tokens: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return tokens with </s> behind them."""
        return np.append(tokens, self._end).astype(np.int64)

    def batch(self, rows: Sequence[Iterable[_Sequence]]) -> Batch:
        """Write each row's sequences one after another."""
        shape, target_shape = (len(rows), self._row_length), (len(rows), self._target_row_length)
        input_ids, decoder_input_ids = np.full(shape, self._pad), np.full(target_shape, self._pad)
        labels = np.full(target_shape, IGNORED)
        starts, target_starts = np.zeros(shape, np.bool_), np.zeros(target_shape, np.bool_)
        for index, sequences in enumerate(rows):
            cursor = target_cursor = 0
            for source, target in sequences:
                stop, target_stop = cursor + len(source), target_cursor + len(target)
                input_ids[index, cursor:stop] = source
                labels[index, target_cursor:target_stop] = target
                decoder_input_ids[index, target_cursor] = self._begin
                decoder_input_ids[index, target_cursor + 1 : target_stop] = target[:-1]
                starts[index, cursor] = target_starts[index, target_cursor] = True
                cursor, target_cursor = stop, target_stop
            starts[index, cursor:][:1] = True
            target_starts[index, target_cursor:][:1] = True
        return tensors(
            input_ids=input_ids,
            position_ids=restarting_positions(starts),
            decoder_input_ids=decoder_input_ids,
            decoder_position_ids=restarting_positions(target_starts),
            labels=labels,
        )


def _segments(store: "TokenStore", longest: int, *, seed: int) -> tuple[Segments, int]:
    """Return the segments of at least 2 tokens, and how many are shorter."""
    segments = cut_documents(store, find_sentences(store), longest, seed=seed, epoch=0)
    kept = np.flatnonzero(segments.length >= 2)
    if not len(kept):
        raise ValueError("segments of at least 2 tokens (0) must be at least 1; give a corpus that has text.")
    return segments.take(kept), len(segments.length) - len(kept)


def _target_row_length(
    lengths: NDArray[np.int64], target_lengths: NDArray[np.int64], row_length: int, requested: int | None
) -> int:
    longest = int(target_lengths.max())
    if requested is None:
        alike = row_length * int(target_lengths.sum()) / int(lengths.sum())
        return _TILE * int(np.ceil(max(longest, alike) / _TILE))
    if requested < longest:
        raise ValueError(
            f"target_row_length ({requested}) must be at least {longest} for row_length ({row_length}); "
            "leave it out to have one that fits."
        )
    return requested


def _random_parts(number: int, num_parts: int, bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Divide a number into positive parts, each division as likely as any other, from `number` random words."""
    cuts = np.sort(np.argsort(bits[: number - 1], kind="stable")[: num_parts - 1]) + 1
    return np.diff(cuts, prepend=0, append=number)
