"""Losses, exact under accumulation and over several processes: sums divided by the number of what was predicted.

A mean of means weighs a token by how few others its micro-batch predicts. Each loss here is a sum over its own batch
divided by a count, and the count may be given: when it is that of all micro-batches and processes, adding up the
losses (and gradients) gives those of one big batch.

Shapes: N predicted tokens, B batch, T positions, E hidden size, V vocabulary. Losses are in nats.
"""

from typing import Literal, NamedTuple

import torch
from torch import nn

IGNORED = -100
"""Label of a position that is not predicted."""

Count = torch.Tensor | int | float | None

Problem = Literal["regression", "single_label_classification", "multi_label_classification"]
"""As transformers' `problem_type` names what labels of whole texts are."""


class Targets(NamedTuple):
    """Labels of what is predicted alone, where somebody has looked for it.

    Attributes:
        places: Places of what has a label in the flattened batch, [N], in row order.
        tokens: The labels there, [N].
    """

    places: torch.Tensor
    tokens: torch.Tensor


Labels = torch.Tensor | Targets | None


def normalised_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, count: Count = None, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Sum the cross-entropy in float32 and divide it by a count.

    Args:
        logits: [N, V].
        labels: [N], class ids or `IGNORED`.
        count: What to divide by; None: the number of labels that are not ignored. With none, the loss is 0, not NaN.
        label_smoothing: Share of the target's probability that is spread over all V, in [0, 1) (Szegedy et al. 2016,
            arXiv:1512.00567, section 7; Vaswani et al. 2017, section 5.4).

    Returns:
        A scalar.
    """
    labels = labels.to(logits.device)  # of a model that is spread over devices the logits are on the last
    total = summed_cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return total / clamped_count(labels, count)


def summed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Sum the cross-entropy of logits [N, V] in float32; see `normalised_cross_entropy`."""
    return nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )


def clamped_count(labels: torch.Tensor, count: Count) -> torch.Tensor:
    """Give the count as a tensor on the labels' device, or else the number of labels not ignored; at least 1."""
    if count is None:
        count = number_of_labels(labels)
    if not torch.is_tensor(count):
        return torch.full((), max(count, 1), device=labels.device)  # made there: nothing to be sent and waited for
    return count.to(labels.device).clamp(min=1)


def predicted_positions(
    hidden_states: torch.Tensor, labels: torch.Tensor | Targets
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick what has a label, so that nothing else goes through the vocabulary: 15 % of the tokens in masked training.

    Args:
        hidden_states: [B, T, E].
        labels: [B, T], `IGNORED` where nothing is predicted; to know how much is, a GPU is waited for. Or `Targets`.

    Returns:
        Hidden states [N, E] and labels [N] of the predicted positions, in row order.
    """
    if isinstance(labels, Targets):
        places, tokens = labels
    else:
        flat = labels.flatten().to(hidden_states.device)
        places = (flat != IGNORED).nonzero(as_tuple=True)[0]
        tokens = flat.index_select(0, places)
    # Not by indexing, whose backward pass sorts the places first: here none comes twice.
    return hidden_states.flatten(0, 1).index_select(0, places), tokens


def kept_positions(hidden_states: torch.Tensor, kept: int | torch.Tensor) -> torch.Tensor:
    """Pick the positions whose logits somebody wants, as transformers' `logits_to_keep` names them.

    Args:
        hidden_states: [B, T, E].
        kept: A number n of last positions, 0 for all: gives [B, n, E]. Positions [n], or [B, n] for each row its own:
            likewise. A boolean mask [B, T]: gives [number of True, E] in row order.
    """
    if isinstance(kept, int):
        return hidden_states[:, -kept:]
    if kept.dtype == torch.bool:
        return hidden_states[kept]
    if kept.dim() == 1:
        return hidden_states[:, kept]
    return hidden_states.gather(1, kept[..., None].expand(-1, -1, hidden_states.shape[-1]))


def next_tokens(labels: torch.Tensor, sequence_ids: torch.Tensor | None = None) -> torch.Tensor:
    """Move labels [B, T] one place to the left: position t predicts token t + 1, and the last position nothing.

    With the packed sequence of each token, [B, T], the last token of a sequence predicts nothing either.
    """
    if sequence_ids is not None:
        first = torch.diff(sequence_ids, dim=1, prepend=sequence_ids[:, :1]) != 0
        labels = labels.masked_fill(first, IGNORED)
    return nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def previous_tokens(
    labels: torch.Tensor, sequence_ids: torch.Tensor | None = None, *, first: int, padding: int
) -> torch.Tensor:
    """Move labels [B, T] one place to the right behind a first token: what a decoder reads while it predicts them.

    What is ignored as a label is read as padding. With the packed sequence of each token, [B, T], the first token
    stands at the beginning of each sequence.
    """
    moved = torch.cat((torch.full_like(labels[:, :1], first), labels[:, :-1]), dim=1)
    if sequence_ids is not None:
        moved = moved.masked_fill(torch.diff(sequence_ids, dim=1, prepend=sequence_ids[:, :1]) != 0, first)
    return moved.masked_fill(moved == IGNORED, padding)


def problem_of(labels: torch.Tensor, *, num_labels: int, told: Problem | None) -> Problem:
    """Say what labels of whole texts are, unless somebody has: a number, a class, or several classes at once."""
    if told is not None:
        return told
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, problem: Problem, count: Count = None
) -> torch.Tensor:
    """Compute the loss of whole texts.

    Args:
        logits: [B, C].
        labels: Class ids [B], or floats [B] for a regression and [B, C] for several classes at once.
        problem: As transformers' `problem_type` names it.
        count: What to divide by; None: the number of labels.

    Returns:
        A scalar.
    """
    if problem == "single_label_classification":
        return normalised_cross_entropy(logits, labels.view(-1), count=count)
    if problem == "regression":
        total = nn.functional.mse_loss(logits.flatten(), labels.flatten().to(logits), reduction="sum")
    else:
        total = nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="sum")
    return total / (labels.numel() if count is None else count)


def span_cross_entropy(ends: tuple[torch.Tensor, ...], places: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Compute the loss of a span's first and last token, the mean of the two.

    Args:
        ends: Scores of every token as the first and as the last, [B, T] each.
        places: Places of the first and the last [B]; those outside [0, T) are not counted.

    Returns:
        A scalar.
    """
    total = ends[0].new_zeros(())
    for logits, place in zip(ends, places, strict=True):
        place = place.view(-1)
        outside = (place < 0) | (place >= logits.shape[1])
        total = total + normalised_cross_entropy(logits, place.masked_fill(outside, IGNORED))
    return total / 2


def order_cross_entropy(
    logits: torch.Tensor, next_sentence_label: torch.Tensor | Targets, *, count: Count = None
) -> torch.Tensor:
    """Compute the next-sentence loss of the vectors that `first_tokens` picked.

    Args:
        logits: [B, 2], or [number of packed sequences, 2].
        next_sentence_label: As for `first_tokens`.
        count: See `normalised_cross_entropy`.

    Returns:
        A scalar.
    """
    if isinstance(next_sentence_label, Targets):
        return normalised_cross_entropy(logits, next_sentence_label.tokens, count=count)
    labels = next_sentence_label.flatten()
    if len(labels) != len(logits):
        labels = labels[labels != IGNORED]
    return normalised_cross_entropy(logits, labels, count=count)


def sequence_count(labels: Labels, next_sentence_label: torch.Tensor | Targets, *, tokens: Count) -> Count:
    """Estimate the number of sequences to divide by when only the number of predicted tokens is known.

    Trainer counts the predicted tokens of all micro-batches and processes, and not their sequences. This batch then
    gets the share of the next-sentence mean that it has of the predicted tokens: exact in scale, and exact in weight
    when every micro-batch predicts as many tokens a sequence.

    Args:
        labels: Masked-language labels [B, T], or None: the count of tokens is then one of sequences.
        next_sentence_label: [B] or [B, T].
        tokens: Predicted tokens of all micro-batches and processes; None: only this batch counts.

    Returns:
        A count, or None.
    """
    if tokens is None or labels is None:
        return tokens
    return tokens * number_of_labels(next_sentence_label) / number_of_labels(labels).clamp(min=1)


def number_of_labels(labels: torch.Tensor | Targets) -> torch.Tensor:
    """Count the labels that are not ignored, as a tensor, so that no GPU is waited for."""
    return torch.tensor(len(labels.tokens)) if isinstance(labels, Targets) else (labels != IGNORED).sum()
