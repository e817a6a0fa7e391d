"""Where documents are cut into stretches that fill a row, and where they are not.

A document that fits into a sequence stays whole. A longer one is cut so that every row can be filled: whole sentences
would leave each row half a sentence short (with rows of 128 tokens, 12 % of all positions in novels), and that gap is
too small for anything else. So, as RoBERTa's and BERT's own data do at one end or the other,

- a stretch of a long document takes all the tokens that fit, and is cut before a word; the rest of its sentence begins
  the next stretch;
- what is left at a document's end, and the short documents, share rows with one another (see `packing`);
- stretches that are drawn shorter on purpose (see `next_sentence`) end with a sentence.

A model then meets sequences that begin or end inside a sentence, and for a word near such an end it has the context
of one side alone, as for any word near the end of a sequence. In return no position is spent on padding and each
sequence is as long as it can be. The stretches of a document together are the document.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .draws import Purpose, random_bits, uniforms
from .sequences import Segments
from .store import SENTENCE_START, WORD_START

if TYPE_CHECKING:
    from .store import TokenStore

# A document's last stretch has at least this share of the longest, so that it has some context to predict from; and
# as much is given up to cut before a word: longer words (addresses, tables) are divided.
_LEAST_SHARE = 1 / 8
_LEAST_TO_GIVE_UP = 2


@dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences of a corpus, numbered through all documents.

    Attributes:
        starts: Tokens of the corpus before each sentence, and its total at the end, [num_sentences + 1].
        document_offsets: Document d has the sentences `document_offsets[d]` to `document_offsets[d + 1]`,
            [num_documents + 1].
    """

    starts: NDArray[np.int64]
    document_offsets: NDArray[np.int64]

    @property
    def document_starts(self) -> NDArray[np.int64]:
        """Tokens of the corpus before each document, and its total at the end, [num_documents + 1]."""
        return self.starts[self.document_offsets]


def find_sentences(store: "TokenStore") -> Sentences:
    """Return where the sentences of a corpus begin."""
    by_document = [np.flatnonzero(store.flags(document) & SENTENCE_START) for document in range(store.num_documents)]
    numbers = np.array([len(starts) for starts in by_document], np.int64)
    starts = np.zeros(int(numbers.sum()) + 1, np.int64)
    starts[:-1] = np.concatenate([*by_document, np.zeros(0, np.int64)])
    starts[:-1] += np.repeat(np.cumsum(store.lengths) - store.lengths, numbers)
    starts[-1] = store.lengths.sum()
    return Sentences(starts, np.concatenate([[0], np.cumsum(numbers)]))


def cut_documents(
    store: "TokenStore", sentences: Sentences, longest: int, *, seed: int, epoch: int, short_share: float = 0.0
) -> Segments:
    """Cut the documents of a corpus into stretches of at most `longest` tokens; every token stands in one of them.

    Args:
        store: The tokenised corpus.
        sentences: Its sentences.
        longest: Most tokens of a stretch, at least 5.
        seed: The run's seed.
        epoch: The epoch, from 0; each has its own draws.
        short_share: The share of stretches that aim at a random shorter length, from 0 to 1.

    Returns:
        The stretches in corpus order.
    """
    cutter = _Cutter(sentences, longest, seed=seed, epoch=epoch, short_share=short_share)
    begins: list[int] = []
    numbers: list[int] = []
    for document in range(store.num_documents):
        cuts = list(cutter.stretches(document, store.flags(document)))
        begins += cuts
        numbers.append(len(cuts))
    start = np.array(begins, np.int64)
    of_document = np.repeat(np.arange(store.num_documents), numbers)
    length = np.diff(start, append=sentences.starts[-1])
    return Segments(of_document, start - sentences.document_starts[of_document], length)


class _Cutter:
    """Where one stretch after another begins; the arguments are those of `cut_documents`.

    Positions count through the whole corpus.
    """

    def __init__(self, sentences: Sentences, longest: int, *, seed: int, epoch: int, short_share: float) -> None:
        # Plain lists: the loop runs once a stretch, and Python reads a list's element far faster than an array's.
        self._sentences = sentences.starts.tolist()
        self._offsets = sentences.document_offsets.tolist()
        self._longest, self._short_share = longest, short_share
        self._least = max(1, int(longest * _LEAST_SHARE))
        self._given_up = max(_LEAST_TO_GIVE_UP, self._least)
        # A stretch ends with a sentence or a document, or is at least half as long as the longest.
        most = len(self._sentences) + len(self._offsets) + 2 * self._sentences[-1] // longest
        self._draws = iter(uniforms(random_bits(seed, Purpose.CUTS, counter=(0, epoch, 0), size=most)).tolist())

    def stretches(self, document: int, flags: NDArray[np.uint8]) -> Iterator[int]:
        """Iterate over the positions at which the stretches of a document begin."""
        first, last = self._offsets[document], self._offsets[document + 1]
        opening, stop = self._sentences[first], self._sentences[last]
        begin = opening
        while begin < stop:
            yield begin
            draw, end = next(self._draws), None
            if draw < self._short_share:
                target = 2 + int(draw / self._short_share * (self._longest - 1))
                end = self._end_of_sentences(begin, bisect_right(self._sentences, begin, first, last), last, target)
            elif stop - begin <= self._longest:
                return
            if end is None:
                place = min(begin + self._longest, stop - self._least) - opening
                end = opening + self._word_before(flags, place)
            begin = end

    def _end_of_sentences(self, begin: int, following: int, last: int, target: int) -> int | None:
        """Return where whole sentences of about `target` tokens end, two if they fit at all; None if none fits.

        Args:
            begin: Where they begin.
            following: The first sentence that begins after `begin`.
            last: The first sentence of the next document.
            target: How many tokens are aimed at.
        """
        sentences, room = self._sentences, begin + self._longest
        chosen = bisect_right(sentences, begin + target, following, last + 1) - 1
        if chosen <= following:
            fits_two = following < last and sentences[following + 1] <= room
            chosen = following + 1 if fits_two else following
            if sentences[chosen] > room:
                return None
        # A last sentence left alone could not make a pair.
        return sentences[chosen - 1 if last - chosen == 1 and chosen > following + 1 else chosen]

    def _word_before(self, flags: NDArray[np.uint8], place: int) -> int:
        """Return where the last word begins up to a place of the document; the place itself if none does nearby."""
        nearby = flags[place - self._given_up : place + 1] & WORD_START
        for back, is_start in enumerate(nearby[::-1].tolist()):
            if is_start:
                return place - back
        return place
