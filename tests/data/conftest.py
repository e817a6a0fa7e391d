"""An in-memory stand-in for the tokenised corpus, filled at random."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

FIRST_ORDINARY_TOKEN = 7


class MemoryStore:
    """What the objectives read of a TokenStore: documents given as sentences, sentences as words, words as tokens."""

    def __init__(self, documents: list[list[list[list[int]]]]) -> None:
        self._tokens, self._flags = [], []
        for sentences in documents:
            flags = [
                (1 if place == 0 else 0) | (2 if number == place == 0 else 0)
                for words in sentences
                for number, word in enumerate(words)
                for place in range(len(word))
            ]
            tokens = [token for words in sentences for word in words for token in word]
            self._tokens.append(np.array(tokens, np.int32))
            self._flags.append(np.array(flags, np.uint8))
        self.num_documents = len(documents)
        self.lengths = np.array([len(tokens) for tokens in self._tokens], np.int64)
        self.num_tokens = int(self.lengths.sum())

    def tokens(self, document: int) -> np.ndarray:
        return self._tokens[document]

    def flags(self, document: int) -> np.ndarray:
        return self._flags[document]


@pytest.fixture(scope="session")
def memory_store() -> Callable[..., MemoryStore]:
    """Build a store from documents of sentences of words of tokens."""
    return MemoryStore


@pytest.fixture(scope="session")
def random_store() -> Callable[..., MemoryStore]:
    """Build a store of random documents in which every token occurs once, so that a token names its place."""

    def build(
        seed: int, *, num_documents: int = 40, mean_sentences: float = 6.0, mean_words: float = 7.0
    ) -> MemoryStore:
        generator = np.random.default_rng(seed)
        next_token = FIRST_ORDINARY_TOKEN
        documents = []
        for _ in range(num_documents):
            sentences = []
            for _ in range(1 + generator.poisson(mean_sentences - 1)):
                words = []
                for _ in range(1 + generator.poisson(mean_words - 1)):
                    length = 1 + generator.poisson(0.4)
                    words.append(list(range(next_token, next_token + length)))
                    next_token += length
                sentences.append(words)
            documents.append(sentences)
        return MemoryStore(documents)

    return build


@pytest.fixture(scope="session")
def encoder_tokens() -> Callable[[int], SimpleNamespace]:
    """Build the special tokens of an encoder with a vocabulary of a given size."""

    def build(vocab_size: int) -> SimpleNamespace:
        return SimpleNamespace(
            pad=0, unknown=1, classify=2, separate=3, mask=4, begin=None, end=None, vocab_size=vocab_size
        )

    return build


@pytest.fixture(scope="session")
def decoder_tokens() -> Callable[[int], SimpleNamespace]:
    """Build the special tokens of a decoder with a vocabulary of a given size."""

    def build(vocab_size: int) -> SimpleNamespace:
        return SimpleNamespace(
            pad=0, unknown=None, classify=None, separate=None, mask=None, begin=1, end=2, vocab_size=vocab_size
        )

    return build
