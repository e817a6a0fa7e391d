"""What decides the shapes of a training step, found out on the host, so that no GPU is waited for.

How many sequences a batch holds, and how many tokens it predicts, is written in its positions and labels. To read it
off a GPU is to wait until it has done all that it was given, and to have nothing ready for it then. So it is read
while the batch is still on the CPU, and the model is given the answers: where sequences begin as the bounds of a line,
labels as `Targets`. It computes the same numbers from them as from the batch.

In numpy, and so on one thread: shared out over the many of a machine with a GPU, work as short as this takes longer,
up to a tenth of a second where other processes want them too.

Shapes: B batch, T positions, N predicted positions.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..model.losses import IGNORED, Targets
from ..model.variable_length import VARIABLE_LENGTH


def prepared(model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Give a batch on the CPU as a head over the vocabulary takes it without looking for anything.

    Args:
        model: Of another kind, it gets the batch as it is; with another attention than `minilm_varlen`, its positions.
        batch: `input_ids`, `position_ids` and `labels` [B, T], and whatever else there is.
    """
    if getattr(model, "is_causal_head", None) is None:
        return dict(batch)
    found = {"position_ids", "labels", "next_sentence_label"}
    if not model.config.type_vocab_size:
        found.add("token_type_ids")  # which it does not look at
    inputs: dict[str, Any] = {name: values for name, values in batch.items() if name not in found}
    positions, labels = batch["position_ids"].numpy(), batch["labels"].numpy()
    begins = np.ones(positions.shape, np.bool_)
    begins[:, 1:] = np.diff(positions, axis=1) != 1
    # A row that begins at 0 and goes on by one is what the model takes a row for that it is told nothing of.
    if model.config._attn_implementation != VARIABLE_LENGTH:
        inputs["position_ids"] = batch["position_ids"]
    elif begins[:, 1:].any() or positions[:, 0].any():
        inputs["position_ids"] = batch["position_ids"]
        inputs["attention_mask"] = _bounds(begins)
    if model.is_causal_head:
        following = np.full_like(labels, IGNORED)
        following[:, :-1] = np.where(begins[:, 1:], IGNORED, labels[:, 1:])
        inputs["shift_labels"] = _targets(following)
    else:
        inputs["labels"] = _targets(labels)
    if "next_sentence_label" in batch:
        inputs["next_sentence_label"] = _targets(batch["next_sentence_label"].numpy())
    return inputs


def _bounds(begins: NDArray[np.bool_]) -> torch.Tensor:
    """Say where sequences begin when all rows stand in one line, and where the last one ends, as `sequence_bounds`."""
    return torch.from_numpy(np.append(np.flatnonzero(begins), begins.size).astype(np.int32))


def _targets(labels: NDArray[np.int64]) -> Targets:
    """Pick what is not `IGNORED` of labels [B, T]."""
    places = np.flatnonzero(labels != IGNORED)
    return Targets(torch.from_numpy(places), torch.from_numpy(labels.ravel()[places]))


def on_device(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Send what a model is given to a device; to a GPU from pinned memory, so that nothing waits for the copy."""
    return each_tensor(inputs, lambda tensor: _sent(tensor, device))


def each_tensor(inputs: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Change every tensor, or array, of what a model is given."""
    return {
        name: Targets(*map(change, value)) if isinstance(value, Targets) else change(value)
        for name, value in inputs.items()
    }


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
