"""How likely a model finds whole texts, in nats: the score by which the two texts of a minimal pair are compared.

- `causal`: the log-probability of the text after a begin token.
- `masked`: the pseudo-log-likelihood (Salazar et al. 2020), the sum of each token's log-probability when it is masked,
  in the form of Kauf and Ivanova 2023, "A better way to do masked language model scoring": with a token, those of the
  same word that follow it are masked too. Otherwise the end of a word would give its beginning away, and rare words
  that fall into many tokens would look likely. A word is what the tokenizer divides before it makes tokens of it.
  An unknown token is not asked for: it stands for any text, and a model that was never to predict it finds it unlikely.
- `hybrid`: the sum of both, for one set of weights that was trained for both (Charpentier and Samuel 2024, "GPT or
  BERT: why not both?").

All are computed in float32 and summed without rounding, so that two texts with the same numbers in another order tie.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from tokenizers import Encoding
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokenizer import begin_token, special_tokens, text_encoder
from ..model.modeling_minilm import LanguageModelHead, MiniLMForCausalLM, MiniLMForMaskedLM
from .language_model import predicts_next_token
from .token_scores import Query, target_log_probabilities

SCORINGS = ("auto", "masked", "causal", "hybrid")

_TEXTS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class TextScore:
    """What a model thinks of one text.

    Attributes:
        nats: The sum of the log-probabilities.
        tokens: The ids that it was asked for.
        is_intact: Whether the tokenizer has each word, or pieces of it: none is unknown or falls apart into single
            characters.
    """

    nats: float
    tokens: tuple[int, ...]
    is_intact: bool


@dataclass(frozen=True, slots=True)
class _Text:
    """A text's tokens as the tokenizer frames them.

    Attributes:
        text: The text.
        ids: All of them.
        words: The number of each token's word; None: a token of the frame.
        spans: Where each token begins and ends in the text.
    """

    text: str
    ids: tuple[int, ...]
    words: tuple[int | None, ...]
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, text: str, encoding: Encoding) -> "_Text":
        """Read what the tokenizer made of a text."""
        # A token that was added to the vocabulary by hand is of no word: it is one by itself, numbered from -1 down.
        words = tuple(
            None if is_frame else (-1 - place if word is None else word)
            for place, (word, is_frame) in enumerate(zip(encoding.word_ids, encoding.special_tokens_mask, strict=True))
        )
        return cls(text, tuple(encoding.ids), words, tuple(encoding.offsets))

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of the text's own tokens."""
        return tuple(token for token, word in zip(self.ids, self.words, strict=True) if word is not None)

    def is_intact(self, unknown: int | None) -> bool:
        """Return whether nothing is unknown, and no word of several characters has a token for each of them."""
        pieces: dict[int, list[str]] = defaultdict(list)
        for word, (start, stop) in zip(self.words, self.spans, strict=True):
            piece = self.text[start:stop].strip()  # a byte-level token may be a space, or begin with one
            if word is not None and piece:
                pieces[word].append(piece)
        # Tokens that are parts of one character all span it, so there may be more of them.
        is_apart = (len(found) > 1 and max(map(len, found)) == 1 for found in pieces.values())
        return (unknown is None or unknown not in self.tokens) and not any(is_apart)


class TextScorer:
    """Scores texts with one model.

    Args:
        model: A masked, pre-training or causal language model; for `hybrid` one of this package.
        tokenizer: Its tokenizer.
        scoring: `masked`, `causal` or `hybrid`; `auto`: what the model's class does.

    Raises:
        ValueError: If the model or the tokenizer cannot do what is asked for.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, scoring: str = "auto") -> None:
        self.scoring = chosen_scoring(model, scoring)
        self._tokenizer = tokenizer
        self._encoder = text_encoder(tokenizer)
        self._longest = longest_text(model, tokenizer)
        self._models: list[PreTrainedModel] = [model]
        if self.scoring == "hybrid":
            self._models = list(both_directions(model))
        self._builders = {
            "masked": [self._masked],
            "causal": [self._causal],
            "hybrid": [self._masked, self._causal],
        }[self.scoring]
        if self.scoring != "causal" and tokenizer.mask_token_id is None:
            raise ValueError(f"the tokenizer's mask token (None) must exist for {self.scoring} scoring; score causal.")
        self._begin = None if self.scoring == "masked" else begin_token(special_tokens(tokenizer))

    def score(self, texts: Sequence[str]) -> list[TextScore | None]:
        """Return the score of each text; None for one without tokens, or longer than the model's positions."""
        scores: list[TextScore | None] = []
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            scores += self._score(texts[first : first + _TEXTS_AT_ONCE])
        return scores

    def _score(self, texts: Sequence[str]) -> list[TextScore | None]:
        encoded = [
            _Text.of(text, encoding)
            for text, encoding in zip(texts, self._encoder.encode_batch(list(texts)), strict=True)
        ]
        asked = [place for place, text in enumerate(encoded) if self._fits(text)]
        logs: list[list[float]] = [[] for _ in encoded]
        for model, build in zip(self._models, self._builders, strict=True):
            owners, queries = [], list[Query]()
            for place in asked:
                built = build(encoded[place])
                owners += [place] * len(built)
                queries += built
            for owner, answer in zip(owners, target_log_probabilities(model, queries), strict=True):
                logs[owner] += answer.tolist()
        fitting = set(asked)
        return [
            TextScore(math.fsum(logs[place]), self._asked(text), text.is_intact(self._tokenizer.unk_token_id))
            if place in fitting
            else None
            for place, text in enumerate(encoded)
        ]

    def _fits(self, text: _Text) -> bool:
        # One more than the text's own tokens, for the begin token of a causal reading.
        return bool(text.tokens) and max(len(text.ids), len(text.tokens) + 1) <= self._longest

    def _asked(self, text: _Text) -> tuple[int, ...]:
        """Return the ids that a text's score is of."""
        if self.scoring != "masked":
            return text.tokens
        return tuple(token for token in text.tokens if token != self._tokenizer.unk_token_id)

    def _masked(self, text: _Text) -> list[Query]:
        """Ask for each known token, masked with those of its word that follow it."""
        mask = cast(int, self._tokenizer.mask_token_id)
        queries = []
        for place, word in enumerate(text.words):
            if word is not None and text.ids[place] != self._tokenizer.unk_token_id:
                ids = [
                    mask if other == word and at >= place else token
                    for at, (token, other) in enumerate(zip(text.ids, text.words, strict=True))
                ]
                queries.append(Query(tuple(ids), (place,), (text.ids[place],)))
        return queries

    def _causal(self, text: _Text) -> list[Query]:
        tokens = text.tokens
        # The last token is read by nobody.
        return [Query((cast(int, self._begin), *tokens[:-1]), tuple(range(len(tokens))), tokens)]


def chosen_scoring(model: PreTrainedModel, scoring: str) -> str:
    """Return the scoring for a model, `auto` resolved.

    Raises:
        ValueError: If the scoring is unknown, or the model's class predicts in the other direction.
    """
    if scoring not in SCORINGS:
        raise ValueError(f"scoring ({scoring}) must be one of {', '.join(SCORINGS)}; choose one of them.")
    own = "causal" if predicts_next_token(model) else "masked"
    if scoring in ("masked", "causal") and scoring != own:
        raise ValueError(f"scoring ({scoring}) must be {own} for a {type(model).__name__}; leave it out.")
    return own if scoring == "auto" else scoring


def both_directions(model: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a masked and a causal model with the same weights, the model itself being one of them.

    Raises:
        ValueError: If it is none of this package, or one of the two needs weights that it does not have.
    """
    if not isinstance(model, LanguageModelHead):
        raise ValueError(
            f"model (a {type(model).__name__}) must be a language model of this package for hybrid scoring."
        )
    other_class = MiniLMForMaskedLM if model.is_causal_head else MiniLMForCausalLM
    config = copy.deepcopy(model.config)
    config.is_causal = not model.is_causal_head
    other = other_class(config)
    loaded = other.load_state_dict(model.state_dict(), strict=False)
    if loaded.missing_keys:
        raise ValueError(
            f"weights of the model (no {loaded.missing_keys[0]}) must serve masked and causal prediction for hybrid "
            "scoring; train with --set model.overrides.prediction_transform=false."
        )
    torch.nn.Module.to(other, model.device, model.dtype).eval()
    return (other, model) if model.is_causal_head else (model, other)


def longest_text(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the most tokens that a model can read, special ones included."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return tokenizer.model_max_length
    embeddings = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    if padding is not None:  # RoBERTa counts positions from there on
        positions -= padding + 1
    return min(tokenizer.model_max_length, positions)
