"""How many floating-point operations a training step is made of, counted from the model and its tokens.

Counted is what the task needs and no more: padding counts nothing, and the vocabulary counts at predicted positions
only, so that a model which computes more than it has to gets no credit for it. A product of a vector with a matrix of P
parameters takes 2 P operations forward and 4 P backward; attention takes 4 T E forward and 8 T E backward for each
token of a sequence of T tokens at a width of E (Chowdhery et al. 2022, arXiv:2204.02311, appendix B; as there, causal
attention is not halved), however many sequences share a row. Norms, activations, embeddings and the optimizer are left
out.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class MatrixWork:
    """What a model multiplies.

    Attributes:
        layers: Parameters of the matrices that every token goes through.
        head: Parameters of the matrices that a predicted token goes through: to the vocabulary, and before it.
        order: Parameters of the matrices that a whole sequence goes through once, for next-sentence prediction.
        width: Width E of the attention of a layer: all its heads together.
        windows: For each layer the most tokens that a token looks at; None: its whole sequence.
    """

    layers: int
    head: int
    order: int
    width: int
    windows: tuple[int | None, ...]


def matrix_work(model: PreTrainedModel) -> MatrixWork:
    """Read off a model, ours or a peer, which matrices its tokens go through."""
    base_parts = {id(module) for module in model.base_model.modules()}
    vocabulary = model.get_output_embeddings()
    counts = {"layers": 0, "head": 0, "order": 0}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D):
            continue
        if module is not vocabulary and ("pooler" in name.split(".") or len(module.weight) == 2):
            part = "order"
        else:
            part = "layers" if id(module) in base_parts else "head"
        counts[part] += module.weight.numel()
    config: Any = model.config
    heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return MatrixWork(**counts, width=heads * config.num_attention_heads, windows=_windows(config))


def _windows(config: Any) -> tuple[int | None, ...]:
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    if window is None:
        return (None,) * len(kinds)
    # A bidirectional window reaches as far to the right as to the left.
    reach = window if getattr(config, "is_causal", False) else 2 * window + 1
    return tuple(reach if kind == "sliding_attention" else None for kind in kinds)


def count_looks(work: MatrixWork, lengths: torch.Tensor) -> torch.Tensor:
    """Count the pairs of tokens of which one looks at the other, over all layers, as a tensor on the same device.

    Args:
        work: Says how far the layers look.
        lengths: Tokens of each sequence, in any shape.
    """
    looks = torch.zeros((), dtype=torch.int64, device=lengths.device)
    for window, layers in Counter(work.windows).items():
        looks = looks + layers * (lengths * (lengths if window is None else lengths.clamp(max=window))).sum()
    return looks


def training_flops(work: MatrixWork, *, tokens: float, predicted: float, sequences: float, looks: float) -> float:
    """Count the operations of training on some tokens, forward and backward.

    Args:
        work: What the model multiplies.
        tokens: Tokens, without padding.
        predicted: Those of them that are predicted.
        sequences: Sequences with a next-sentence label.
        looks: Pairs of tokens of which one looks at the other, see `count_looks`.
    """
    products = work.layers * tokens + work.head * predicted + work.order * sequences
    return 6.0 * products + 12.0 * work.width * looks
