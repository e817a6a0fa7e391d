"""How low a loss can be on the built-in corpus, whose probabilities are known.

For masked words and next sentences the exact predictor of `best_prediction` reads the very sequences that the model
reads, so both figures stand on the same masked tokens and the same pairs. It takes each word to be selected
independently, whereas a sequence's number of selected words is fixed: as good as no difference.

For causal models the floor is the entropy of the held-out documents themselves.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.best_prediction import MASK, BestPrediction, Channel, Segment, SegmentLaw
from ..data.document import Document
from ..data.masking import special_ids
from ..data.objectives import MaskedObjective
from ..data.sequences import IGNORED
from ..data.store import SENTENCE_START
from ..data.world import World, text_of
from .language_model import evaluating, prediction_logits
from .unpacking import UnpackedSequence, unpacked_sequences

_LEAST_READABLE = 0.8  # leaving out more than the rare divided word would choose the easy sequences


@dataclass(frozen=True, slots=True)
class MaskedFloor:
    """The best predictor and a model on the same sequences; losses in nats.

    Attributes:
        nats_per_token: The best predictor's mean loss of a masked token.
        model_nats_per_token: The model's.
        num_tokens: Masked tokens.
        num_sequences: Sequences.
        next_sentence_loss: The best predictor's mean loss of the next-sentence label; None without labels, as below.
        next_sentence_accuracy: Share of labels that the best predictor gets right; a tie counts half.
        model_next_sentence_loss: The model's mean loss.
        model_next_sentence_accuracy: The share that the model gets right.
        num_pairs: Sequences with a next-sentence label.
    """

    nats_per_token: float
    model_nats_per_token: float
    num_tokens: int
    num_sequences: int
    next_sentence_loss: float | None
    next_sentence_accuracy: float | None
    model_next_sentence_loss: float | None
    model_next_sentence_accuracy: float | None
    num_pairs: int


@dataclass(frozen=True, slots=True)
class _Scores:
    """Log-probabilities of the true tokens and, for a pair, the probability that it is the next sentence's."""

    token_nats: float
    next_probability: float | None


def masked_floor(
    model: nn.Module, objective: MaskedObjective, world: World, tokenizer: Any, *, max_sequences: int = 48
) -> MaskedFloor | str:
    """Compare a model with the best possible prediction on the first held-out sequences.

    Args:
        model: A masked or pre-training model.
        objective: The held-out objective over stories of `world`.
        world: The built-in corpus.
        tokenizer: The objective's tokenizer.
        max_sequences: Most sequences to look at; each takes the exact predictor a fraction of a second. Those with a
            word that the tokenizer divides are left out.

    Returns:
        The figures, or in one sentence why there are none.
    """
    sequences = _readable(
        objective, world, tokenizer, list(itertools.islice(unpacked_sequences(objective), max_sequences))
    )
    if isinstance(sequences, str):
        return sequences
    words = _words(tokenizer, sequences)
    predictor = world.best_predictor(_channel(objective), law=_segment_law(objective, sequences))
    best = []
    for sequence in sequences:
        segments = _segments(objective, sequence, words)
        best.append(_scores_of_best(predictor.predict(*segments)))
    with evaluating(model) as device:
        own = [_scores_of_model(model, sequence, device) for sequence in sequences]
    return _compare(sequences, best, own)


def causal_floor(world: World, documents: Iterable[Document], num_tokens: int) -> float:
    """Return the least mean loss of a causal model on held-out stories, whatever the tokenizer, in nats per token.

    The stories' own probability is what a perfect model gives them; a model that happens to do better on some of
    them does worse on others.

    Args:
        world: The distribution of the stories.
        documents: The held-out stories.
        num_tokens: Predicted tokens of the stories: all of their tokens, and an end token each.

    Raises:
        ValueError: If a document is no story of this world, or there is no token.
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens ({num_tokens}) must be at least 1; give the predicted tokens of the documents.")
    nats = 0.0
    for document in documents:
        log = world.log_probability(document)
        if log == -math.inf:
            raise ValueError(f"document ({document.source}) must be a story of the world; give its own documents.")
        nats -= log
    return nats / num_tokens


def _words(tokenizer: Any, sequences: list[UnpackedSequence]) -> dict[int, str]:
    """Return the text of every token that occurs, seen or true; that of the mask token is `MASK`."""
    ids = sorted({token for item in sequences for token in (*item.input_ids.tolist(), *item.true_ids)})
    return {token: MASK if token == tokenizer.mask_token_id else tokenizer.decode([token]).strip() for token in ids}


def _readable(
    objective: MaskedObjective, world: World, tokenizer: Any, sequences: list[UnpackedSequence]
) -> list[UnpackedSequence] | str:
    """Return the sequences that the best predictor can read, or why it cannot."""
    longest = objective.max_sequence_length - (3 if objective.next_sentence else 2)
    if objective.store.lengths.max() > longest:
        return "The floor is known only for whole sentences, and stories longer than a sequence are cut inside one."
    words, vocabulary = _words(tokenizer, sequences), set(world.vocabulary)
    readable = [item for item in sequences if _is_word_by_word(objective, tokenizer, item, words, vocabulary)]
    if len(readable) <= _LEAST_READABLE * len(sequences):
        return "The floor is known only where each token is one word, and the tokenizer divides words."
    return readable


def _is_word_by_word(
    objective: MaskedObjective, tokenizer: Any, sequence: UnpackedSequence, words: dict[int, str], vocabulary: set[str]
) -> bool:
    """Return whether each token is one word: words of the corpus, of which the tokenizer makes just these tokens."""
    for tokens in _texts(objective, sequence.true_ids):
        story = [words[token] for token in tokens]
        if not vocabulary.issuperset(story):
            return False
        # Two tokens may spell one word, and each of them another word.
        if tokenizer(text_of(story), add_special_tokens=False)["input_ids"] != tokens:
            return False
    return True


def _channel(objective: MaskedObjective) -> Channel:
    masking = objective.masking
    ordinary = objective.special.vocab_size - len(special_ids(objective.special))
    return Channel(ordinary, rate=masking.mask_rate, mask=masking.mask_share, random=masking.random_share)


def _segment_law(objective: MaskedObjective, sequences: list[UnpackedSequence]) -> SegmentLaw:
    """Measure how often first segments, and second ones of another document, open a story."""
    openings = _openings(objective)
    lengths = sorted({len(opening) for opening in openings})

    def share_of_openings(texts: list[list[int]]) -> float:
        opens = [any(tuple(text[:length]) in openings for length in lengths) for text in texts]
        return sum(opens) / len(opens) if opens else 0.0

    texts = [(_texts(objective, sequence.true_ids), sequence.next_sentence_label) for sequence in sequences]
    return SegmentLaw(
        first_opens=share_of_openings([first for (first, *_), _ in texts]),
        second_opens=share_of_openings([text[1] for text, label in texts if label == 1]),
        cut=False,
    )


def _openings(objective: MaskedObjective) -> set[tuple[int, ...]]:
    """Return the first sentences of all held-out documents."""
    openings = set()
    for document in range(objective.store.num_documents):
        starts = np.flatnonzero(objective.store.flags(document) & SENTENCE_START)
        stop = starts[1] if len(starts) > 1 else None
        openings.add(tuple(objective.store.tokens(document)[:stop].tolist()))
    return openings - {()}


def _texts(objective: MaskedObjective, tokens: list[int]) -> list[list[int]]:
    """Divide `[CLS] first [SEP] second [SEP]` into its segments, one or two."""
    ends = [place for place, token in enumerate(tokens) if token == objective.special.separate]
    return [tokens[start + 1 : end] for start, end in itertools.pairwise([0, *ends])]


def _segments(objective: MaskedObjective, sequence: UnpackedSequence, words: dict[int, str]) -> list[Segment]:
    # Neither masking nor random replacement makes or removes a separator.
    ends = np.flatnonzero(sequence.input_ids.numpy() == objective.special.separate).tolist()
    segments = []
    for start, end in itertools.pairwise([0, *ends]):
        labels = sequence.labels[start + 1 : end]
        selected = (labels != IGNORED).nonzero().flatten()
        observed = tuple(words[token] for token in sequence.input_ids[start + 1 : end].tolist())
        truth = tuple(words[token] for token in labels[selected].tolist())
        segments.append(Segment(observed, tuple(selected.tolist()), truth))
    return segments


def _scores_of_best(prediction: BestPrediction) -> _Scores:
    return _Scores(-float(prediction.log_probabilities.sum()), prediction.next_probability)


def _scores_of_model(model: nn.Module, sequence: UnpackedSequence, device: torch.device) -> _Scores:
    output = model(
        input_ids=sequence.input_ids[None].to(device), token_type_ids=sequence.token_type_ids[None].to(device)
    )
    predicted = (sequence.labels != IGNORED).nonzero().flatten()
    logs = prediction_logits(output)[0, predicted.to(device)].double().log_softmax(-1).cpu()
    nats = -float(logs.gather(1, sequence.labels[predicted][:, None]).sum())
    if sequence.next_sentence_label == IGNORED:
        return _Scores(nats, None)
    return _Scores(nats, float(output.seq_relationship_logits[0].double().softmax(-1)[0]))


def _compare(sequences: list[UnpackedSequence], best: list[_Scores], own: list[_Scores]) -> MaskedFloor:
    num_tokens = sum(int((sequence.labels != IGNORED).sum()) for sequence in sequences)
    best_loss, best_accuracy = _next_sentence_figures(sequences, best)
    own_loss, own_accuracy = _next_sentence_figures(sequences, own)
    return MaskedFloor(
        nats_per_token=sum(scores.token_nats for scores in best) / num_tokens,
        model_nats_per_token=sum(scores.token_nats for scores in own) / num_tokens,
        num_tokens=num_tokens,
        num_sequences=len(sequences),
        next_sentence_loss=best_loss,
        next_sentence_accuracy=best_accuracy,
        model_next_sentence_loss=own_loss,
        model_next_sentence_accuracy=own_accuracy,
        num_pairs=sum(sequence.next_sentence_label != IGNORED for sequence in sequences),
    )


def _next_sentence_figures(
    sequences: list[UnpackedSequence], scores: list[_Scores]
) -> tuple[float | None, float | None]:
    """Return the mean loss of the label and the share of right answers."""
    shares = [
        score.next_probability if sequence.next_sentence_label == 0 else 1.0 - score.next_probability
        for sequence, score in zip(sequences, scores, strict=True)
        if sequence.next_sentence_label != IGNORED and score.next_probability is not None
    ]
    if not shares:
        return None, None
    nats = -sum(math.log(max(share, 1e-300)) for share in shares)
    right = sum(0.5 if share == 0.5 else float(share > 0.5) for share in shares)
    return nats / len(shares), right / len(shares)
