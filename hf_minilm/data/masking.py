"""Which tokens a masked language model has to restore, and what it sees in their place.

Devlin et al. 2019 (BERT), section 3.1: 15 % of the tokens are selected; of those 80 % become [MASK], 10 % a random
token, 10 % stay. Whole-word masking selects all tokens of a word together; as in BERT's own whole-word models, each
token of a selected word is then replaced, exchanged or kept on its own.

Shape letters: N token positions of a batch, rows one after another.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .sequences import IGNORED

if TYPE_CHECKING:
    from .tokenizer import SpecialTokens


class Masking:
    """Selects and replaces tokens; a pure function of the tokens and of the random words handed in.

    In each sequence exactly `round(mask_rate * n)` of its n ordinary tokens are selected, at least one. Words are
    taken in random order and one that would overshoot is passed over, as in BERT; so the count falls short only when
    no word that is left is short enough, and exceeds it only when every word of the sequence is longer than it.

    Special tokens, padding and unknown words are never selected: there is no word to restore.

    Args:
        special: The tokenizer's special tokens.
        mask_rate: The share of tokens to predict, above 0 and up to 1.
        mask_share: The share of those that become [MASK], from 0 to 1.
        random_share: The share of those that become a token drawn evenly from all ordinary ones, from 0 to 1.
        whole_word: Whether the tokens of a word are selected together.

    Raises:
        ValueError: If a share is out of range or the tokenizer has no [MASK].
    """

    def __init__(
        self,
        special: "SpecialTokens",
        *,
        mask_rate: float = 0.15,
        mask_share: float = 0.8,
        random_share: float = 0.1,
        whole_word: bool = True,
    ) -> None:
        if not 0 < mask_rate <= 1:
            raise ValueError(f"mask_rate ({mask_rate}) must be above 0 and at most 1; 0.15 is usual.")
        if mask_share < 0 or random_share < 0 or mask_share + random_share > 1:
            raise ValueError(
                f"mask_share ({mask_share}) and random_share ({random_share}) must be at least 0 and add up to at "
                "most 1; 0.8 and 0.1 are usual."
            )
        if special.mask is None:
            raise ValueError("the tokenizer's mask token (None) must exist; use an encoder tokenizer.")
        self.mask_rate, self.mask_share, self.random_share = mask_rate, mask_share, random_share
        self.whole_word = whole_word
        self._mask_token = special.mask
        self._is_special = np.zeros(special.vocab_size, np.bool_)
        self._is_special[special_ids(special)] = True
        self._ordinary_tokens = np.flatnonzero(~self._is_special)

    def apply(
        self,
        input_ids: NDArray[np.int64],
        *,
        word_starts: NDArray[np.bool_],
        sequence_starts: NDArray[np.bool_],
        word_bits: NDArray[np.uint64],
        token_bits: NDArray[np.uint64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the input with its selected tokens replaced, and the labels (-100 where nothing is selected).

        Args:
            input_ids: The tokens, [N].
            word_starts: Where a word begins, or a special token stands, [N].
            sequence_starts: Where a sequence begins, [N].
            word_bits: Random words that decide which words are selected, [N].
            token_bits: Random words that decide what becomes of each selected token, [N].
        """
        maskable = ~self._is_special[input_ids]
        starts = word_starts | sequence_starts if self.whole_word else np.ones(len(input_ids), np.bool_)
        first_tokens = np.flatnonzero(starts)
        if not maskable.any():
            return input_ids, np.full(len(input_ids), IGNORED)
        sequences = (np.cumsum(sequence_starts) - 1)[first_tokens]
        lengths = np.add.reduceat(maskable, first_tokens, dtype=np.int64)
        chosen = self._choose_words(lengths, sequences, word_bits[first_tokens])
        word_of_token = np.cumsum(starts) - 1
        selected = np.flatnonzero(chosen[word_of_token] & maskable)
        labels = np.full(len(input_ids), IGNORED)
        labels[selected] = input_ids[selected]
        corrupted = input_ids.copy()
        corrupted[selected] = self._replacements(input_ids[selected], token_bits[selected])
        return corrupted, labels

    def _choose_words(
        self, lengths: NDArray[np.int64], sequences: NDArray[np.int64], bits: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Choose words up to each sequence's number of tokens; a word of length 0 has nothing to predict."""
        words = np.flatnonzero(lengths)
        # Sorted by sequence, then at random: 40 random bits below the sequence's number.
        keys = (sequences[words].astype(np.uint64) << np.uint64(40)) | (bits[words] >> np.uint64(24))
        words = words[np.argsort(keys, kind="stable")]
        sequence, length = sequences[words], lengths[words]
        firsts = np.flatnonzero(np.diff(sequence, prepend=-1))
        group = np.cumsum(np.diff(sequence, prepend=-1) != 0) - 1
        totals = np.add.reduceat(length, firsts)
        room = np.maximum(1, np.floor(self.mask_rate * totals + 0.5).astype(np.int64))
        running = np.cumsum(length)
        taken = running - (running - length)[firsts][group] <= room[group]
        room -= np.add.reduceat(length * taken, firsts)
        _fill_room(taken, length, group, room)
        # Where every word is too long the first one is taken all the same.
        none = ~np.logical_or.reduceat(taken, firsts)
        taken[firsts[none]] = True
        chosen = np.zeros(len(lengths), np.bool_)
        chosen[words[taken]] = True
        return chosen

    def _replacements(self, tokens: NDArray[np.int64], bits: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Draw what stands in place of each selected token: the high half of the bits decides, the low half draws."""
        fate = (bits >> np.uint64(32)).astype(np.float64) * 2.0**-32
        draws = ((bits & np.uint64(2**32 - 1)) * np.uint64(len(self._ordinary_tokens))) >> np.uint64(32)
        kept_or_random = np.where(
            fate < self.mask_share + self.random_share, self._ordinary_tokens[draws.astype(np.int64)], tokens
        )
        return np.where(fate < self.mask_share, self._mask_token, kept_or_random)


def special_ids(special: "SpecialTokens") -> list[int]:
    """Return the ids of a tokenizer's special tokens, those that it has."""
    ids = (special.pad, special.unknown, special.mask, special.classify, special.separate, special.begin, special.end)
    return sorted({token for token in ids if token is not None})


def _fill_room(
    taken: NDArray[np.bool_], lengths: NDArray[np.int64], group: NDArray[np.int64], room: NDArray[np.int64]
) -> None:
    """Take, in each group, the next word in order that still fits, until none does; `taken` and `room` change."""
    pending = np.flatnonzero(~taken)
    while True:
        pending = pending[lengths[pending] <= room[group[pending]]]
        if not len(pending):
            return
        is_first = np.diff(group[pending], prepend=-1) != 0
        next_words = pending[is_first]
        taken[next_words] = True
        room[group[next_words]] -= lengths[next_words]
        pending = pending[~is_first]
