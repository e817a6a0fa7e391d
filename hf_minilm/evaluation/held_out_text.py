"""How well a language model predicts a text of anybody's, and tells its next sentences from those of other documents.

The text becomes windows as in pre-training, with the same masks for every model of one tokenizer. They are read one by
one rather than packed, so that the classes of transformers, which would look across, can be measured beside ours.
"""

import dataclasses
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.corpus import BUILTIN_SOURCES, Corpus
from ..data.document import Document, split_sentences
from ..data.objectives import CausalObjective, MaskedObjective
from ..data.sequences import IGNORED
from ..data.store import TokenStore, build_store
from ..data.tokenizer import special_tokens, token_bytes
from .evaluation_result import Figure
from .intervals import bootstrap_interval
from .language_model import evaluating, predicts_next_token
from .minimal_pairs import points_of
from .sentence_pairs import share_of
from .text_scores import TextScorer
from .token_scores import Query, target_log_probabilities
from .unpacking import UnpackedSequence, unpacked_sequences

_SEQUENCES_AT_ONCE = 1_024
_LARGEST_BATCH = 8_192  # tokens
_PADDING = -1  # no token: GPT-2's padding would be its begin token, and nothing is fed that is padded


class HeldOutText:
    """The documents of a source, in the windows of one tokenizer.

    Args:
        source: A file, a folder, a pattern, `hub:...` or a built-in corpus.
        tokenizer: The model's.
        part: "all" of the documents; or "validation", those that a training on this source holds out. Of the built-in
            corpora it is always the latter.
        length: Most tokens of a window.
        seed: Decides the masks and the pairs of segments.
        trained_on: A corpus that has the source: then "validation" is what a training on that corpus holds out of it.

    Raises:
        ValueError: If the source cannot be used.
        FileNotFoundError: If it does not exist.
    """

    def __init__(
        self,
        source: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        part: str = "all",
        length: int = 128,
        seed: int = 0,
        trained_on: Corpus | None = None,
    ) -> None:
        self._corpus, self._tokenizer = Corpus([source], seed=seed), tokenizer
        self._is_whole = part == "all" and source not in BUILTIN_SOURCES
        self._length, self._seed, self._trained_on = length, seed, trained_on

    def documents(self) -> Iterator[Document]:
        """Stream the documents."""
        if self._trained_on is not None:
            return self._trained_on.held_out_of(self._corpus)
        return self._corpus.undivided() if self._is_whole else self._corpus.documents("validation")

    def masked(self, *, next_sentence: bool = False) -> MaskedObjective:
        """Return the windows with masks, 15 % of the tokens in whole words."""
        special = special_tokens(self._tokenizer)
        return MaskedObjective(
            self._store(), special, row_length=self._length, seed=self._seed, next_sentence=next_sentence
        )

    def causal(self) -> CausalObjective:
        """Return the windows of a decoder."""
        special = dataclasses.replace(special_tokens(self._tokenizer), pad=_PADDING)
        return CausalObjective(self._store(), special, row_length=self._length, seed=self._seed)

    def sentences(self) -> list[str]:
        """Return the sentences of all documents."""
        paragraphs = (paragraph for document in self.documents() for paragraph in document.paragraphs)
        return [paragraph[start:stop] for paragraph in paragraphs for start, stop in split_sentences(paragraph)]

    def _store(self) -> TokenStore:
        key = f"{self._corpus.fingerprint()} {'all' if self._is_whole else 'validation'}"
        if self._trained_on is not None:
            key += f" of {self._trained_on.fingerprint()}"
        return build_store(self.documents, self._tokenizer, cache_folder=None, key=key, progress=False)


def evaluate_held_out(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: HeldOutText, *, seed: int, limit: int | None
) -> dict[str, Figure]:
    """Measure `loss`, `perplexity` and `bits_per_byte` of the predicted tokens, with bootstrap intervals over windows.

    Args:
        model: A masked, pre-training or causal language model.
        tokenizer: Its tokenizer.
        text: The text.
        seed: That of the bootstrap.
        limit: Most windows; they are mixed.

    Raises:
        ValueError: If the text has nothing to predict.
    """
    is_causal = predicts_next_token(model)
    windows = unpacked_sequences(text.causal() if is_causal else text.masked())
    build = _causal_query if is_causal else _masked_query
    queries = filter(lambda query: query.targets, map(build, itertools.islice(windows, limit)))
    sums = []
    sizes = token_bytes(tokenizer)
    while chunk := list(itertools.islice(queries, _SEQUENCES_AT_ONCE)):
        for query, logs in zip(chunk, target_log_probabilities(model, chunk), strict=True):
            sums.append((-logs.sum(), len(query.targets), sizes[list(query.targets)].sum()))
    return _loss_figures(sums, resampled="windows", seed=seed)


def evaluate_pseudo_perplexity(
    scorer: TextScorer, tokenizer: PreTrainedTokenizerBase, text: HeldOutText, *, seed: int, limit: int
) -> dict[str, Figure]:
    """Measure the same from the pseudo-log-likelihoods of sentences; see `text_scores`.

    Sentences that are longer than the model can read are passed over.

    Args:
        scorer: A masked model's.
        tokenizer: Its tokenizer.
        text: The text.
        seed: Decides which sentences, and the bootstrap.
        limit: Most sentences, drawn from all.

    Raises:
        ValueError: If there is no sentence that the model can read.
    """
    sentences = text.sentences()
    if len(sentences) > limit:
        sentences = random.Random(seed).sample(sentences, limit)
    sizes = token_bytes(tokenizer)
    scores = [score for score in scorer.score(sentences) if score is not None]  # without sentences that are too long
    sums = [(-score.nats, len(score.tokens), sizes[list(score.tokens)].sum()) for score in scores]
    figures = _loss_figures(sums, resampled="sentences", seed=seed)
    return {f"pseudo_{metric}": figure for metric, figure in figures.items()}


def _masked_query(sequence: UnpackedSequence) -> Query:
    positions = (sequence.labels != IGNORED).nonzero().flatten()
    targets = sequence.labels[positions].tolist()
    return Query(tuple(sequence.input_ids.tolist()), tuple(positions.tolist()), tuple(targets))


def _causal_query(sequence: UnpackedSequence) -> Query:
    ids = tuple(sequence.input_ids.tolist())
    return Query(ids[:-1], tuple(range(len(ids) - 1)), ids[1:])


def _loss_figures(sums: Sequence[Sequence[float]], *, resampled: str, seed: int) -> dict[str, Figure]:
    """Turn nats, tokens and bytes of each example into the three figures; no bits without bytes."""
    columns = np.array(sums, np.float64).reshape(-1, 3)
    total = columns.sum(axis=0, keepdims=True)
    if not total[0, 1]:
        raise ValueError("predicted tokens (0) must be at least 1 in the held-out text; give more of it.")
    measured = {
        "loss": ("nats", lambda drawn: drawn[:, 0] / drawn[:, 1]),
        "perplexity": ("perplexity", lambda drawn: np.exp(drawn[:, 0] / drawn[:, 1])),
        "bits_per_byte": ("bits", lambda drawn: drawn[:, 0] / math.log(2) / drawn[:, 2]),
    }
    if not total[0, 2]:
        del measured["bits_per_byte"]
    figures = {}
    for metric, (unit, statistic) in measured.items():
        low, high = bootstrap_interval(columns, statistic, seed=seed)
        figures[metric] = Figure(
            value=float(statistic(total)[0]),
            low=low,
            high=high,
            n=int(total[0, 1]),
            counted="tokens",
            unit=unit,
            interval=f"bootstrap over {resampled}",
        )
    return figures


def evaluate_next_sentence(model: PreTrainedModel, text: HeldOutText, *, limit: int | None) -> dict[str, Figure]:
    """Measure how often a model tells the next sentences from those of another document; nothing is masked.

    Returns:
        `accuracy`; `majority`, the share of the commoner label, which is the accuracy of a constant answer.

    Raises:
        ValueError: If the model has no such head, or the text no pairs.
    """
    asked = (each for each in unpacked_sequences(text.masked(next_sentence=True)) if each.next_sentence_label >= 0)
    pairs = list(itertools.islice(asked, limit))
    right = sum(_next_sentences_right(model, pairs))
    first = sum(pair.next_sentence_label == 0 for pair in pairs)
    majority = share_of(max(first, len(pairs) - first), len(pairs))
    return {
        "accuracy": share_of(right, len(pairs)),
        "majority": dataclasses.replace(majority, low=None, high=None, interval=None),
    }


def _next_sentences_right(model: PreTrainedModel, pairs: Sequence[UnpackedSequence]) -> Iterator[float]:
    """Give a point for each pair that a model gets right, and half of one where it finds both answers equally likely.

    Pairs of one length are read together, without padding.
    """
    by_length: dict[int, list[UnpackedSequence]] = defaultdict(list)
    for pair in pairs:
        by_length[len(pair.input_ids)].append(pair)
    with evaluating(model) as device:
        for length, group in by_length.items():
            most = max(1, _LARGEST_BATCH // length)
            for first in range(0, len(group), most):
                chunk = group[first : first + most]
                input_ids = torch.tensor([pair.true_ids for pair in chunk], device=device)
                types = torch.stack([pair.token_type_ids for pair in chunk]).to(device)
                output = model(input_ids=input_ids, token_type_ids=types)
                for pair, scores in zip(chunk, _order_logits(model, output).tolist(), strict=True):
                    yield points_of(scores[pair.next_sentence_label], scores[1 - pair.next_sentence_label])


def _order_logits(model: PreTrainedModel, output: Any) -> torch.Tensor:
    """Return the scores of "is the next sentence" and "is not", [B, 2]."""
    if type(model).__name__.endswith("ForNextSentencePrediction"):
        return output.logits
    logits = getattr(output, "seq_relationship_logits", None)
    if logits is None:
        raise ValueError(f"model (a {type(model).__name__}) must have a next-sentence head; leave the suite out.")
    return logits
