"""Attention over packed rows as one long line of tokens with marks where sequences begin, on CUDA: `minilm_varlen`.

A mask over a row of T tokens costs T^2 scores a row, most of which lie across sequences and are thrown away. The
kernel below (FlashAttention, Dao 2023, arXiv:2307.08691, as torch ships it) is told where sequences begin and never
looks across: a sequence of length L costs L^2. It knows self-attention without a cache, and no position bias.

Shapes: B batch, H query heads, K key and value heads, T positions, D head size, N sequences.
"""

from typing import Any, cast

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

VARIABLE_LENGTH = "minilm_varlen"
"""The name to give as `attn_implementation`."""


def sequence_bounds(
    batch_size: int,
    length: int,
    *,
    sequence_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    device: torch.device,
) -> torch.Tensor:
    """Say where each sequence begins when all rows stand in one line, and where the last one ends: int32 [N + 1].

    Runs of padding are sequences of their own: nobody looks at them, and no token has to be moved.

    Args:
        batch_size: B.
        length: T.
        sequence_ids: Number of each token's sequence, [B, T]; None: a row is one sequence.
        attention_mask: 1 for tokens and 0 for padding, [B, T], or None.
        device: Where to build.
    """
    starts = torch.zeros(batch_size, length, dtype=torch.bool, device=device)
    starts[:, 0] = True
    for changing in (sequence_ids, attention_mask):
        if changing is not None:
            starts[:, 1:] |= changing[:, 1:] != changing[:, :-1]
    first = starts.flatten().nonzero().flatten()
    return nn.functional.pad(first, (0, 1), value=batch_size * length).to(torch.int32)


def variable_length_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> tuple[torch.Tensor, None]:
    """Compute attention inside each sequence of a line of tokens.

    Args:
        module: The attention module; its `is_causal` gives the direction.
        query: Queries [B, H, T, D].
        key: Keys [B, K, T, D].
        value: Values [B, K, T, D].
        attention_mask: As `sequence_bounds` gives it; None: a row is one sequence.
        scaling: Factor of the scores.
        dropout: Must be 0.
        sliding_window: Tokens seen to the left, the token itself included, and when bidirectional to the right too.
        **kwargs: Ignored; what other implementations of the same interface need.

    Returns:
        Outputs [B, T, H, D], and no weights.

    Raises:
        ValueError: If weights are to be dropped, or there are other keys than the queries' own.
    """
    batch_size, _, length, _ = query.shape
    if dropout > 0:
        raise ValueError(f"attention_dropout ({dropout}) must be 0 with {VARIABLE_LENGTH}; set it, or use sdpa.")
    if key.shape[2] != length or (attention_mask is not None and attention_mask.dim() != 1):
        raise ValueError(
            f"number of keys ({key.shape[2]}) must be that of the queries ({length}) with {VARIABLE_LENGTH}, which "
            "knows no cache and no mask of its own; generate with use_cache=False, or use sdpa."
        )
    if attention_mask is None:
        attention_mask = torch.arange(batch_size + 1, dtype=torch.int32, device=query.device) * length
    group_size = query.shape[1] // key.shape[1]
    if group_size > 1:
        key, value = key.repeat_interleave(group_size, dim=1), value.repeat_interleave(group_size, dim=1)
    line = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]  # [B x T, H, D]
    left = -1 if sliding_window is None else sliding_window - 1
    window = (left, 0 if module.is_causal else left)
    outputs = _kernel()(*line, attention_mask, attention_mask, length, length, scale=scaling, window_size=window)
    return cast(torch.Tensor, outputs).unflatten(0, (batch_size, length)), None


def _kernel() -> Any:
    """Fetch torch's kernel when it is first needed: older versions of torch do not have it."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


# Code that came with a saved model must not take the place of the installed package's.
if VARIABLE_LENGTH not in AttentionInterface().valid_keys():
    AttentionInterface.register(VARIABLE_LENGTH, variable_length_attention)
    # What transformers builds by itself, for a cache, is an ordinary mask, which the function above refuses by shape.
    AttentionMaskInterface.register(VARIABLE_LENGTH, sdpa_mask)
