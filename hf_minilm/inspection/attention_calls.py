"""What an attention module hands to its kernel, and the mask that this amounts to.

Every implementation of transformers' attention interface is told in its own way who may look at whom: by a tensor, by
blocks, or by the bare facts that a kernel needs to work it out (direction, window, padding, where sequences begin).

Shapes: B batch, H heads, T query positions, S key positions, N sequences.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    eager_mask,
    flash_attention_mask,
    flex_attention_mask,
)


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of the attention interface.

    Attributes:
        module: The attention module that calls.
        implementation: Name of the kernel; None and `eager` are the module's own formula.
        query: Queries [B, all query heads, T, D].
        key: Keys [B, key heads, S, D].
        mask: What the implementation's mask function made.
        options: The keyword arguments.
    """

    module: nn.Module
    implementation: str | None
    query: torch.Tensor
    key: torch.Tensor
    mask: torch.Tensor | BlockMask | None
    options: Mapping[str, Any]

    @property
    def lengths(self) -> tuple[int, int]:
        """T and S."""
        return self.query.shape[2], self.key.shape[2]


def mask_of(call: AttentionCall) -> torch.Tensor | None:
    """Give the mask [B or 1, 1 or all heads, T, S] that the kernel goes by; None where all may look at all.

    It is boolean (True = may look), or a float added to the scores where the kernel was handed one.

    Raises:
        ValueError: If it is in a form that is not known.
    """
    mask = call.mask
    if isinstance(mask, BlockMask):
        batch_size, heads = mask.shape[:2]
        return create_mask(mask.mask_mod, batch_size, heads, *call.lengths, device=call.query.device)
    if mask is not None and mask.dim() == 4:
        return mask
    made_by = ALL_MASK_ATTENTION_FUNCTIONS.get(call.implementation)
    if mask is None and (call.implementation is None or made_by in (eager_mask, flex_attention_mask)):
        return None
    if made_by is None or (mask is not None and mask.dim() not in (1, 2)):
        raise ValueError(
            f"attn_implementation ({call.implementation}) must say who may look at whom, and does not in a known form; "
            'use model.set_attn_implementation("sdpa").'
        )
    seen = _by_direction_and_window(call, ends_together=made_by is flash_attention_mask)
    if mask is None:
        return seen
    if mask.dim() == 1:
        return seen & _in_one_sequence(mask, batch_size=call.query.shape[0], length=call.lengths[0])
    return seen & mask[:, None, None].bool()  # no padding among the keys


def _by_direction_and_window(call: AttentionCall, *, ends_together: bool) -> torch.Tensor:
    """Give the mask [1, 1, T, S] of a kernel that is told the direction and the window.

    Args:
        call: The call.
        ends_together: Whether fewer queries than keys are the last tokens, as flash attention has it; for sdpa they
            are the first, but for a single one.
    """
    queries, keys = call.lengths
    skipped = keys - queries if ends_together or queries == 1 else 0
    places = torch.arange(max(queries + skipped, keys), device=call.query.device)
    distance = places[skipped : skipped + queries, None] - places[:keys]  # [T, S], backwards
    is_causal = call.options.get("is_causal")
    if is_causal is None:
        is_causal = getattr(call.module, "is_causal", True)
    seen = distance >= 0 if is_causal else torch.ones_like(distance, dtype=torch.bool)
    window = call.options.get("sliding_window")
    if window is not None:
        seen = seen & (distance.abs() < window)
    return seen[None, None]


def _in_one_sequence(bounds: torch.Tensor, *, batch_size: int, length: int) -> torch.Tensor:
    """Give the mask [B, 1, T, T] within sequences that begin at `bounds` [N + 1] of all rows put in one line."""
    places = torch.arange(batch_size * length, device=bounds.device, dtype=bounds.dtype)
    sequences = torch.bucketize(places, bounds, right=True).view(batch_size, 1, length)
    return sequences[..., :, None] == sequences[..., None, :]
