"""What decides the shapes of a training step, found out on the host, so that no GPU is waited for.

How many sequences a batch holds, and how many tokens it predicts, is written in its labels and positions. To read it
off a GPU is to wait until it has done all that it was given, and to have nothing ready for it then. So it is read
while the batch is still on the CPU, and the model is given the answers: where sequences begin as the bounds of a line,
labels as `Targets`. It computes the same numbers from them as from the batch.
"""

from collections.abc import Mapping
from typing import Any

import torch

from .attention import packed_sequence_ids
from .losses import Targets, next_tokens, targets_of
from .variable_length import VARIABLE_LENGTH, sequence_bounds


def prepared(model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Give a batch on the CPU as a head over the vocabulary takes it without looking for anything.

    Args:
        model: With another attention than `minilm_varlen`, or of another kind, it gets the batch as it is.
        batch: `input_ids`, `position_ids` and `labels` [B, T], and whatever else there is.
    """
    if getattr(model, "is_causal_head", None) is None or model.config._attn_implementation != VARIABLE_LENGTH:
        return dict(batch)
    others = ("position_ids", "labels", "next_sentence_label")
    inputs: dict[str, Any] = {name: values for name, values in batch.items() if name not in others}
    positions, labels = batch["position_ids"], batch["labels"]
    sequence_ids = packed_sequence_ids(positions, batch_size=len(labels))
    # Without positions the model takes each row for one sequence.
    if sequence_ids is not None or bool((positions[:, 0] != 0).any()):
        inputs["position_ids"] = positions
        rows, length = labels.shape
        inputs["attention_mask"] = sequence_bounds(
            rows, length, sequence_ids=sequence_ids, attention_mask=None, device=labels.device
        )
    if model.is_causal_head:
        inputs["shift_labels"] = targets_of(next_tokens(labels, sequence_ids))
    else:
        inputs["labels"] = targets_of(labels)
    if "next_sentence_label" in batch:
        inputs["next_sentence_label"] = targets_of(batch["next_sentence_label"])
    return inputs


def on_device(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Send what a model is given to a device; to a GPU from pinned memory, so that nothing waits for the copy."""
    return {
        name: Targets(*(_sent(part, device) for part in value)) if isinstance(value, Targets) else _sent(value, device)
        for name, value in inputs.items()
    }


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
