"""The loss of a language model on text that it has not seen.

Shapes: B rows, T token positions, V vocabulary. Losses are in nats per predicted token.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import GenerationMixin, PreTrainedModel

from ..data.objectives import Batch
from ..data.sequences import IGNORED
from ..model.variable_length import VARIABLE_LENGTH


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well a model predicts held-out text.

    Attributes:
        nats_per_token: Mean loss of the predicted tokens.
        bits_per_byte: Loss of all predicted tokens in bits, divided by the bytes of their text: comparable between
            vocabularies of one kind, as spaces are bytes of byte-level tokens and of no others (see `token_bytes`).
            None if the predicted tokens have no text.
        num_tokens: Predicted tokens.
        next_sentence_loss: Mean loss of the next-sentence label, in nats; None without labelled pairs, as below.
        next_sentence_accuracy: Share of labels that the model gets right.
        next_sentence_majority: Share of the commoner label: the accuracy of always giving the same answer.
        num_sequences: Pairs with a next-sentence label.
    """

    nats_per_token: float
    bits_per_byte: float | None
    num_tokens: int
    next_sentence_loss: float | None
    next_sentence_accuracy: float | None
    next_sentence_majority: float | None
    num_sequences: int


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Put a model into evaluation mode without gradients, yield its device, and restore its mode at the end.

    It computes in its own precision: Accelerate makes a model train in 16 bits by replacing its `forward`, and no
    context around that one can turn it off. Compiled layers run as they are written: they would be compiled anew. And
    attention that knows no cache, and on CUDA nothing but 16 bits, gives way to one that does.
    """
    was_training, replaced = model.training, vars(model).pop("forward", None)
    attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if attention == VARIABLE_LENGTH:
        cast(PreTrainedModel, model).set_attn_implementation("sdpa")
    model.eval()
    try:
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            yield next(model.parameters()).device
    finally:
        model.train(was_training)
        if attention == VARIABLE_LENGTH:
            cast(PreTrainedModel, model).set_attn_implementation(VARIABLE_LENGTH)
        if replaced is not None:
            model.forward = replaced


def predicts_next_token(model: nn.Module) -> bool:
    """Return whether position t of a model's logits predicts token t + 1, so that labels are shifted inside.

    An encoder-decoder's are not: its decoder reads `decoder_input_ids`, one place behind the labels.
    """
    return isinstance(model, GenerationMixin) and not getattr(model.config, "is_encoder_decoder", False)


def most_positions(model: Any) -> float:
    """Return the most tokens of a text that a model, or the encoder of one, has positions for."""
    config = getattr(model, "config", None)
    return getattr(getattr(config, "encoder", config), "max_position_embeddings", None) or math.inf


def prediction_logits(output: Any) -> torch.Tensor:
    """Return the logits over the vocabulary, [B, T, V], whichever language-model head the output comes from."""
    logits = getattr(output, "prediction_logits", None)
    return output.logits if logits is None else logits


def held_out(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    token_bytes: NDArray[np.integer] | torch.Tensor,
    autocast: bool = False,
    max_rows: int | None = None,
) -> HeldOut:
    """Measure a model's mean loss.

    Args:
        model: A masked, pre-training or causal model of this package, whose losses are means over what it predicts; or
            an encoder-decoder, which need not be of this package.
        batches: Batches with labels, as an objective's `evaluation_batches` gives them. An encoder-decoder's have
            `decoder_input_ids` besides, and labels [B, T] of the very positions that predict them.
        token_bytes: UTF-8 bytes of each token's text, [V]; 0 for special tokens.
        autocast: Whether to compute in bfloat16; losses are float32 sums, added up in float64, all the same.
        max_rows: Most rows to look at; None: all.

    Raises:
        ValueError: If the batches predict no token.
    """
    return add_up(measure_batches(model, first_rows(batches, max_rows), token_bytes=token_bytes, autocast=autocast))


class BatchSums(NamedTuple):
    """What one batch adds to the measurement of a model; as in `HeldOut`, but sums."""

    nats: float = 0.0
    num_tokens: int = 0
    num_bytes: int = 0
    sequence_nats: float = 0.0
    num_correct: int = 0
    num_first: int = 0
    num_second: int = 0


def measure_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    token_bytes: NDArray[np.integer] | torch.Tensor,
    autocast: bool = False,
) -> list[BatchSums]:
    """Measure a model on each of some batches; see `held_out`."""
    sizes, shifted, sums = torch.as_tensor(token_bytes).cpu(), predicts_next_token(model), list[BatchSums]()
    with evaluating(model) as device:
        for batch in batches:
            translates = "decoder_input_ids" in batch
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
                output = model(**on_device) if translates else model(**on_device, return_logits=False)
            labels = batch["labels"][:, 1:] if shifted else batch["labels"]
            predicted = labels[labels != IGNORED]
            # An encoder-decoder's own loss may be of smoothed labels, and transformers' is NaN without labels.
            nats = summed_loss(output.logits, on_device["labels"]) if translates else _own_loss(output, len(predicted))
            sequences = _sequence_sums(output, batch["next_sentence_label"]) if "next_sentence_label" in batch else ()
            sums.append(BatchSums(nats, len(predicted), int(sizes[predicted].sum()), *sequences))
    return sums


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Add up the losses of labels [B, T] under logits [B, T, V], in nats; -100 is no label."""
    is_predicted = labels != IGNORED
    chosen = logits[is_predicted].float()  # [predicted tokens, V]
    losses = nn.functional.cross_entropy(chosen, labels[is_predicted], reduction="none")
    return losses.double().sum().item()


def _own_loss(output: Any, num_tokens: int) -> float:
    # The model's own mean is a float32 sum over the predicted positions, which alone go through the vocabulary.
    mean = getattr(output, "masked_lm_loss", None)
    mean = output.loss if mean is None else mean
    return mean.double().item() * num_tokens


def _sequence_sums(output: Any, next_sentence_label: torch.Tensor) -> tuple[float, int, int, int]:
    flat = next_sentence_label.flatten()
    labels = flat[flat != IGNORED]
    logits = output.seq_relationship_logits.float().cpu()
    if next_sentence_label.dim() == 1:
        logits = logits[flat != IGNORED]
    nats = nn.functional.cross_entropy(logits.double(), labels, reduction="sum").item()
    counts = [int((labels == label).sum()) for label in (0, 1)]
    return nats, int((logits.argmax(-1) == labels).sum()), counts[0], counts[1]


def add_up(batches: Iterable[BatchSums]) -> HeldOut:
    """Turn the sums of all batches, in their order, into means.

    Raises:
        ValueError: If the batches predict no token.
    """
    columns = zip(*batches, strict=True)
    total = BatchSums(*map(sum, columns))
    if total.num_tokens == 0:
        raise ValueError("predicted tokens (0) must be at least 1 in the held-out text; give more of it.")
    pairs = total.num_first + total.num_second
    return HeldOut(
        nats_per_token=total.nats / total.num_tokens,
        bits_per_byte=total.nats / math.log(2) / total.num_bytes if total.num_bytes else None,
        num_tokens=total.num_tokens,
        next_sentence_loss=total.sequence_nats / pairs if pairs else None,
        next_sentence_accuracy=total.num_correct / pairs if pairs else None,
        next_sentence_majority=max(total.num_first, total.num_second) / pairs if pairs else None,
        num_sequences=pairs,
    )


def first_rows(batches: Iterable[Batch], max_rows: int | None) -> Iterator[Batch]:
    """Iterate over batches until there were `max_rows` rows, the last batch cut short if need be."""
    left = max_rows
    for batch in batches:
        if left is not None and left <= 0:
            return
        yield batch if left is None else {name: tensor[:left] for name, tensor in batch.items()}
        if left is not None:
            left -= len(batch["labels"])
