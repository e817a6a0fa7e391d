"""Attention: each token gathers from the tokens it may look at, in proportion to how well they match.

For a query q_i, keys k_j and values v_j of size D (Vaswani et al. 2017, equation 1):

    score_ij = q_i . k_j / sqrt(D) + bias_ij        how well token j answers what token i asks
    alpha_ij = exp(score_ij) / sum_j exp(score_ij)  over the tokens j that i may look at; weights that sum to 1
    output_i = sum_j alpha_ij v_j

`written_out_attention` is that formula and nothing else. It is what `attn_implementation="eager"` runs, it returns the
weights, and every faster kernel is tested against it. The mask says who may look at whom: all tokens of one's own
sequence (bidirectional), or only oneself and earlier ones (causal).

Shapes: B batch, H query heads, K key and value heads, T query positions, S key positions, D head size, E hidden size.
"""

from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    create_bidirectional_mask,
    create_causal_mask,
    find_packed_sequence_indices,
    packed_sequence_mask_function,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_minilm import MiniLMConfig
from .positions import Rotation, rotate

Mask = torch.Tensor | BlockMask | None
"""What `token_mask` gives: boolean or added to the scores, blocks for flex attention, or None where all may look."""

IMPLEMENTATIONS_WITH_BIAS = ("eager", "sdpa", "flex_attention")
"""Attention implementations that add a position bias to the scores; the others would drop it without a word."""


def written_out_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention by its formula; a query that may look at nothing gets zeros, never NaN.

    Args:
        module: The attention module; its training flag turns dropout on.
        query: Queries [B, H, T, D].
        key: Keys [B, K, S, D]; each group of H / K query heads shares one.
        value: Values [B, K, S, D].
        attention_mask: Who may look at whom, [B, 1 or H, T, S]: boolean (True = may look) or a float added to the
            scores, its type's lowest value where looking is forbidden; None when all may.
        scaling: Factor of the scores, 1 / sqrt(D).
        dropout: Share of the weights dropped in training.
        position_bias: Added to the scores, [B or 1, H, T, S].
        **kwargs: Ignored; what other implementations of the same interface need.

    Returns:
        Outputs [B, T, H, D] and weights alpha [B, H, T, S].
    """
    group_size = query.shape[1] // key.shape[1]
    if group_size > 1:
        key, value = key.repeat_interleave(group_size, dim=1), value.repeat_interleave(group_size, dim=1)
    scores = query @ key.transpose(-1, -2) * scaling  # [B, H, T, S]
    if position_bias is not None:
        scores = scores + position_bias
    weights = masked_softmax(scores, attention_mask).to(value.dtype)
    dropped = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (dropped @ value).transpose(1, 2).contiguous(), weights


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Normalise scores over the last dimension where the mask allows; all-forbidden rows give zeros. In float32."""
    scores = scores.float()
    if mask is None:
        return scores.softmax(dim=-1)
    lowest = torch.finfo(mask.dtype if mask.is_floating_point() else scores.dtype).min
    may_look = mask > lowest if mask.is_floating_point() else mask
    if mask.is_floating_point():
        scores = scores + mask
    weights = scores.masked_fill(~may_look, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights * may_look.any(dim=-1, keepdim=True)


class ResidualProjection(nn.Linear):
    """A projection that ends in the residual sum: a linear one that starts smaller, see `scale_residual_initializer`.

    A class of its own because transformers initialises nothing but modules with parameters of their own in code that
    is not part of it: a rule for `Attention` or for the whole model would never be applied.
    """


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2), with grouped key and value heads."""

    def __init__(self, config: MiniLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = bool(config.is_causal)
        # The configuration has derived both where they were None.
        self.head_dim, key_value_heads = cast(int, config.head_dim), cast(int, config.num_key_value_heads)
        self.num_key_value_groups = config.num_attention_heads // key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout

        query_size, key_size = config.num_attention_heads * self.head_dim, key_value_heads * self.head_dim
        self.query = nn.Linear(config.hidden_size, query_size, bias=config.attention_bias)
        self.key = nn.Linear(config.hidden_size, key_size, bias=config.attention_bias)
        self.value = nn.Linear(config.hidden_size, key_size, bias=config.attention_bias)
        self.output = ResidualProjection(query_size, config.hidden_size, bias=config.attention_bias)
        self.query_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Let every token gather from the tokens that the mask allows.

        Args:
            hidden_states: [B, T, E].
            attention_mask: As `token_mask` gives it.
            rotation: The position scheme's angles, or None.
            position_bias: The position scheme's bias on the scores, or None.
            past_key_values: Keys and values of earlier tokens; this layer's own are added.
            **kwargs: Passed on to the attention implementation.

        Returns:
            Outputs [B, T, E], and weights [B, H, T, S] where the implementation gives them.
        """
        query = self.query_norm(self._split_heads(self.query(hidden_states)))  # [B, H, T, D]
        key = self.key_norm(self._split_heads(self.key(hidden_states)))  # [B, K, T, D]
        value = self._split_heads(self.value(hidden_states))
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # [B, K, S, D]
        if position_bias is not None:
            refuse_dropped_bias(self.config._attn_implementation)
            kwargs["position_bias"] = position_bias

        # vLLM finds this call by reading the source, so its form is fixed: a name assigned, then called once.
        attention_function = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, written_out_attention
        )
        outputs, weights = attention_function(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.output(outputs.flatten(2)), weights

    def _split_heads(self, features: torch.Tensor) -> torch.Tensor:
        return features.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, T, H x D] -> [B, H, T, D]


def refuse_dropped_bias(implementation: str) -> None:
    """Raise where a position bias would be dropped.

    Raises:
        ValueError: If the attention implementation does not add biases to the scores.
    """
    if implementation not in IMPLEMENTATIONS_WITH_BIAS:
        raise ValueError(
            f"attn_implementation ({implementation}) must add the position scheme's bias to the scores, and does not; "
            f"use one of {', '.join(IMPLEMENTATIONS_WITH_BIAS)}."
        )


def packed_sequence_ids(position_ids: torch.Tensor | None, *, batch_size: int) -> torch.Tensor | None:
    """Number the sequences of each row [B, T] where positions do not go on by one; None if no row holds two."""
    if position_ids is None:
        return None
    return find_packed_sequence_indices(position_ids.expand(batch_size, -1))


def token_mask(
    config: MiniLMConfig,
    embeddings: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    sequence_ids: torch.Tensor | None = None,
    past_key_values: Cache | None = None,
) -> Mask:
    """Say who may look at whom, in the form that the attention implementation takes.

    Args:
        config: Gives direction and implementation.
        embeddings: [B, T, E], for their shape, type and device.
        attention_mask: 1 for tokens and 0 for padding, [B, S]; or a whole mask [B, 1, T, S], used as it is.
        sequence_ids: Number of the packed sequence that each token belongs to, [B, T]; no token looks across.
        past_key_values: Keys and values of earlier tokens.

    Returns:
        A mask, or None when every token may look wherever the direction lets it.
    """
    if sequence_ids is not None:
        return _packed_mask(config, embeddings, attention_mask, sequence_ids)
    if config.is_causal:
        return create_causal_mask(config, embeddings, attention_mask, past_key_values)
    return create_bidirectional_mask(config, embeddings, attention_mask)


def _packed_mask(
    config: MiniLMConfig, embeddings: torch.Tensor, attention_mask: torch.Tensor | None, sequence_ids: torch.Tensor
) -> Mask:
    # transformers separates packed rows for causal attention only, and only where no padding mask is given. Asking the
    # implementation's own mask function covers both directions, and by broadcasting rather than by vmap: 15 times
    # faster than an `and_mask_function` at 32 rows of 128 tokens.
    if attention_mask is not None and attention_mask.dim() == 4:
        return attention_mask
    direction = causal_mask_function if config.is_causal else bidirectional_mask_function
    batch_size, length = embeddings.shape[:2]
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=batch_size,
        q_length=length,
        kv_length=length,
        mask_function=and_masks(direction, packed_sequence_mask_function(sequence_ids)),
        attention_mask=None if attention_mask is None else attention_mask.bool(),
        allow_is_causal_skip=False,
        dtype=embeddings.dtype,
        config=config,
        device=embeddings.device,
    )
