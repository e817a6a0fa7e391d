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
from transformers import Cache, EncoderDecoderCache
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
    find_packed_sequence_indices,
    flash_attention_mask,
    packed_sequence_mask_function,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.import_utils import is_tracing

from .configuration_minilm import MiniLMConfig
from .positions import Rotation, rotate
from .variable_length import VARIABLE_LENGTH, sequence_bounds

Mask = torch.Tensor | BlockMask | None
"""What `token_mask` gives: boolean or added to the scores, blocks for flex attention, the bounds of the sequences for
`minilm_varlen`, or None where all may look."""

FLASH_BOUNDS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""Arguments by which flash attention is told where the sequences of a row begin, and how long the longest is."""

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


def residual_projection(inner_size: int, hidden_size: int, *, bias: bool) -> nn.Linear:
    """Build a projection that ends in the residual sum, and so starts smaller, see `scale_residual_initializer`.

    Marked for it, and of no class of its own: what quantises takes nothing but an `nn.Linear`. The mark is not on what
    the projection is part of, because transformers initialises nothing but modules with parameters of their own in code
    that is not part of it.
    """
    projection = nn.Linear(inner_size, hidden_size, bias=bias)
    cast(Any, projection).ends_in_residual = True
    return projection


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), with grouped key and value heads.

    Self-attention takes queries, keys and values from the same tokens. Cross-attention takes keys and values from
    those of another text, the encoder's; it has no positions, as neither text is before the other.
    """

    def __init__(self, config: MiniLMConfig, layer_idx: int, *, is_cross: bool = False) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = bool(config.is_causal) and not is_cross
        # The configuration has derived these where they were None.
        self.head_dim, key_value_heads = cast(int, config.head_dim), cast(int, config.num_key_value_heads)
        slides = cast(list[str], config.layer_types)[layer_idx] == "sliding_attention" and not is_cross
        self.sliding_window = window_with_the_token(config) if slides else None
        self.num_key_value_groups = config.num_attention_heads // key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout

        query_size, key_size = config.num_attention_heads * self.head_dim, key_value_heads * self.head_dim
        source_size = (config.cross_attention_hidden_size if is_cross else None) or config.hidden_size
        self.query = nn.Linear(config.hidden_size, query_size, bias=config.attention_bias)
        self.key = nn.Linear(source_size, key_size, bias=config.attention_bias)
        self.value = nn.Linear(source_size, key_size, bias=config.attention_bias)
        self.output = residual_projection(query_size, config.hidden_size, bias=config.attention_bias)
        self.query_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Let every token gather from the tokens that the mask allows.

        Args:
            hidden_states: [B, T, E].
            attention_mask: As `token_mask` gives it.
            rotation: The position scheme's angles, or None.
            position_bias: The position scheme's bias on the scores, or None.
            past_key_values: Keys and values of earlier tokens; this layer's own are added. In an `EncoderDecoderCache`
                those of another text are computed once.
            encoder_hidden_states: The other text's vectors [B, S, E], for cross-attention.
            **kwargs: Passed on to the attention implementation.

        Returns:
            Outputs [B, T, E], and weights [B, H, T, S] where the implementation gives them.
        """
        query = self._heads(self.query_norm(self._split(self.query(hidden_states))), rotation)  # [B, H, T, D]
        if encoder_hidden_states is None:
            key, value = self._keys_and_values(hidden_states, rotation)  # [B, K, T, D]
            if isinstance(past_key_values, EncoderDecoderCache):
                past_key_values = past_key_values.self_attention_cache
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)  # [B, K, S, D]
        else:
            key, value = self._keys_and_values_of_other_text(encoder_hidden_states, past_key_values)
        if position_bias is not None:
            refuse_dropped_bias(self.config._attn_implementation)
            attention_mask, kwargs = self._with_bias(attention_mask, position_bias, query, key, kwargs)
        sliding_window = self._window(kwargs.get("is_causal"))

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
            sliding_window=sliding_window,
            **kwargs,
        )
        return self.output(outputs.flatten(2)), weights

    def _window(self, is_causal: bool | None) -> int | None:
        """Give the window as kernels count it in the direction that a call asks for; None: the layer's own."""
        if self.sliding_window is None or is_causal is None or is_causal == self.is_causal:
            return self.sliding_window
        return self.sliding_window + (1 if self.is_causal else -1)  # see `window_with_the_token`

    def _split(self, features: torch.Tensor) -> torch.Tensor:
        return features.unflatten(-1, (-1, self.head_dim))  # [B, T, H x D] -> [B, T, H, D]

    def _heads(self, features: torch.Tensor, rotation: Rotation | None) -> torch.Tensor:
        """Turn features [B, T, H, D], and give them by head, [B, H, T, D]."""
        if rotation is None:
            return features.transpose(1, 2)
        if not features.is_cuda:
            return rotate(features.transpose(1, 2), rotation)
        # Compiled, a GPU otherwise writes the gradient by head, and copies it for the projections: 2 % of a step.
        cosine, sine = rotation
        return rotate(features, (cosine.transpose(1, 2), sine.transpose(1, 2))).transpose(1, 2)

    def _keys_and_values(
        self, hidden_states: torch.Tensor, rotation: Rotation | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        key, value = self.key_norm(self._split(self.key(hidden_states))), self._split(self.value(hidden_states))
        return self._heads(key, rotation), self._heads(value, None)

    def _keys_and_values_of_other_text(
        self, encoder_hidden_states: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not isinstance(cache, EncoderDecoderCache):
            return self._keys_and_values(encoder_hidden_states, None)
        if cache.is_updated.get(self.layer_idx):
            layer = cast(Any, cache.cross_attention_cache.layers[self.layer_idx])
            return layer.keys, layer.values
        key, value = self._keys_and_values(encoder_hidden_states, None)
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(key, value, self.layer_idx)

    def _with_bias(
        self,
        mask: torch.Tensor | None,
        bias: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        kwargs: dict[str, Any],
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Hand the bias over in the way that the implementation takes it."""
        if kwargs.get("cache") is not None:
            raise ValueError(
                "position_embedding must not add to the scores in continuous batching, whose keys stand in pages of "
                "many texts; use generate, or a scheme such as rope."
            )
        bias = bias.to(query.dtype)
        if self.config._attn_implementation == "sdpa":
            asked = kwargs.get("is_causal")
            is_causal = self.is_causal if asked is None else asked
            return biased_mask(mask, bias, is_causal=is_causal, query_length=query.shape[2]), kwargs
        if self.config._attn_implementation == "flex_attention":
            bias = bias.expand(query.shape[0], -1, query.shape[2], key.shape[2])  # flex reads it by batch index
        return mask, {**kwargs, "position_bias": bias}


def window_with_the_token(config: MiniLMConfig) -> int:
    """Count a window as kernels do, the token itself included, on the one side or on either.

    The configuration counts it as transformers' masks do: when bidirectional, the token itself is not counted.
    """
    return cast(int, config.sliding_window) + (0 if config.is_causal else 1)


def biased_mask(mask: torch.Tensor | None, bias: torch.Tensor, *, is_causal: bool, query_length: int) -> torch.Tensor:
    """Join a mask and a position bias for sdpa, which adds one tensor to the scores; forbidden places get -infinity.

    transformers' own way writes the lowest finite number there, and a query that may look at nothing would then
    get the average of all values instead of zeros.

    Args:
        mask: [B, 1, T, S], boolean or added to the scores; None: all may look, or all earlier ones if causal.
        bias: [B or 1, H, T, S].
        is_causal: Whether tokens look at earlier ones only.
        query_length: T; a single query that comes with no mask may look at all keys.

    Returns:
        [B or 1, H, T, S].
    """
    if mask is None:
        if not is_causal or query_length == 1:
            return bias
        mask = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).tril()
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, float("-inf"))
    return (bias + mask).masked_fill(mask <= torch.finfo(mask.dtype).min, float("-inf"))


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


def refuse_unseparated_rows(implementation: str) -> None:
    """Raise where packed sequences would look at each other.

    Raises:
        ValueError: If the attention implementation takes no mask.
    """
    if is_flash(implementation) or implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
        raise ValueError(
            f"attn_implementation ({implementation}) must keep packed sequences apart, and takes no mask; use "
            f"{VARIABLE_LENGTH} or sdpa, or for flash attention a single row without padding."
        )


def is_flash(implementation: str) -> bool:
    """Tell whether an attention implementation is flash attention, which is told of padding and takes no mask."""
    # Older versions of transformers give it another name, and no mask function, where it reads pages of keys.
    return ALL_MASK_ATTENTION_FUNCTIONS.get(implementation.removeprefix("paged|")) is flash_attention_mask


def packing(
    config: MiniLMConfig,
    position_ids: torch.Tensor | None,
    attention_mask: Any,
    told: dict[str, Any],
    *,
    batch_size: int,
) -> tuple[torch.Tensor | None, dict[str, Any]]:
    """Find packed sequences, and tell them as the attention implementation keeps them apart.

    That is by a mask, but for flash attention, which is told their bounds, and in a single row alone. A caller that
    tells them, in `FLASH_BOUNDS`, may be recording for a GPU, from which nothing can be read then.

    Args:
        config: Gives the implementation.
        position_ids: [B or 1, T], or None.
        attention_mask: As `MiniLMModel` takes it.
        told: What the caller tells the implementation.
        batch_size: B.

    Returns:
        What `packed_sequence_ids` gives where a mask is needed, and what to tell flash attention.
    """
    is_line = batch_size == 1 and is_flash(config._attn_implementation)
    if is_line and attention_mask is None and told.get("cu_seq_lens_q") is not None:
        return None, {name: told.get(name) for name in FLASH_BOUNDS}
    sequence_ids = packed_sequence_ids(position_ids, attention_mask, batch_size=batch_size)
    if sequence_ids is None or not is_line or not (attention_mask is None or _is_all_tokens(attention_mask)):
        return sequence_ids, {}
    length, device = sequence_ids.shape[1], sequence_ids.device
    bounds = sequence_bounds(1, length, sequence_ids=sequence_ids, attention_mask=None, device=device)
    longest = int(bounds.diff().max())
    return None, dict(zip(FLASH_BOUNDS, (bounds, bounds, longest, longest), strict=True))


def _is_all_tokens(attention_mask: Any) -> bool:
    return isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2 and bool(attention_mask.all())


def packed_sequence_ids(
    position_ids: torch.Tensor | None, attention_mask: Any = None, *, batch_size: int
) -> torch.Tensor | None:
    """Number the sequences of each row [B, T] where positions do not go on by one; None if no row holds two.

    Sequences begin at tokens: how padding is numbered means nothing, where a mask [B, T] says what is padding. None too
    where the mask is the bounds of a line, which tell the same: to look for it, a GPU is waited for.
    """
    dimensions = attention_mask.dim() if isinstance(attention_mask, torch.Tensor) else 0
    if position_ids is None or dimensions == 1:
        return None
    positions = position_ids.expand(batch_size, -1)
    numbers = find_packed_sequence_indices(positions)
    if numbers is None or dimensions != 2:
        return numbers
    are_tokens = attention_mask != 0
    places = torch.arange(numbers.shape[1], device=numbers.device)
    before = (places * are_tokens).cummax(1).values.roll(1, 1)  # where the last token before each place stands
    goes_on = (numbers == numbers.gather(1, before)) | (positions == positions.gather(1, before) + 1)
    begins = are_tokens & (are_tokens.cumsum(1) > 1) & ~goes_on
    return begins.cumsum(1) if is_tracing(begins) or begins.any() else None


def token_mask(
    config: MiniLMConfig,
    embeddings: torch.Tensor,
    attention_mask: torch.Tensor | dict[str, torch.Tensor] | None,
    *,
    layer_type: str = "full_attention",
    sequence_ids: torch.Tensor | None = None,
    past_key_values: Cache | None = None,
) -> Mask:
    """Say who may look at whom in the layers of a type, in the form that the attention implementation takes.

    Args:
        config: Gives direction, window and implementation.
        embeddings: [B, T, E], for their shape, type and device.
        attention_mask: 1 for tokens and 0 for padding, [B, S]; or a whole mask [B, 1, T, S] or the bounds of a line,
            used as they are; or masks by layer type, as `generate` makes them beforehand.
        layer_type: An entry of the configuration's `layer_types`.
        sequence_ids: Number of the packed sequence that each token belongs to, [B, T]; no token looks across.
        past_key_values: Keys and values of earlier tokens.

    Returns:
        A mask, or None when every token may look wherever the direction lets it.
    """
    if isinstance(attention_mask, dict):
        return attention_mask[layer_type]
    if attention_mask is not None and attention_mask.dim() == 1:
        return attention_mask
    is_whole = attention_mask is not None and attention_mask.dim() == 4
    if config._attn_implementation == VARIABLE_LENGTH and past_key_values is None and not is_whole:
        if sequence_ids is None and attention_mask is None:
            return None
        batch_size, length = embeddings.shape[:2]
        return sequence_bounds(
            batch_size, length, sequence_ids=sequence_ids, attention_mask=attention_mask, device=embeddings.device
        )
    slides = layer_type == "sliding_attention"
    if sequence_ids is not None:
        return _packed_mask(config, embeddings, attention_mask, sequence_ids, slides=slides)
    if config.is_causal:
        create_causal = create_sliding_window_causal_mask if slides else create_causal_mask
        return create_causal(config, embeddings, attention_mask, past_key_values)
    create = create_bidirectional_sliding_window_mask if slides else create_bidirectional_mask
    return create(config, embeddings, attention_mask, past_key_values=past_key_values)


def _packed_mask(
    config: MiniLMConfig,
    embeddings: torch.Tensor,
    attention_mask: torch.Tensor | None,
    sequence_ids: torch.Tensor,
    *,
    slides: bool,
) -> Mask:
    # transformers separates packed rows for causal attention only, and only where no padding mask is given. Asking the
    # implementation's own mask function covers both directions, and by broadcasting rather than by vmap: 15 times
    # faster than an `and_mask_function` at 32 rows of 128 tokens.
    if attention_mask is not None and attention_mask.dim() == 4:
        return attention_mask
    seen = and_masks(_seen(config, slides=slides), packed_sequence_mask_function(sequence_ids))
    return _mask_by_rule(config, embeddings, seen, attention_mask, query_length=embeddings.shape[1])


def cross_attention_mask(
    config: MiniLMConfig,
    encoder_hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    query_length: int,
    encoder_sequence_ids: torch.Tensor | None = None,
    decoder_sequence_ids: torch.Tensor | None = None,
) -> Mask:
    """Say which of the encoder's tokens each of the decoder's may look at, in the form that the implementation takes.

    Args:
        config: The decoder's.
        encoder_hidden_states: [B, S, E], for their shape, type and device.
        attention_mask: 1 for the encoder's tokens and 0 for its padding, [B, S]; or a whole mask [B, 1, T, S].
        query_length: T.
        encoder_sequence_ids: Number of the packed sequence of each of the encoder's tokens, [B, S]; None: all of one.
        decoder_sequence_ids: Likewise of the decoder's, [B, T]. The sequences of one number belong together.

    Returns:
        A mask, or None when all may look at all.
    """
    batch_size, source_length = encoder_hidden_states.shape[:2]
    if encoder_sequence_ids is None and decoder_sequence_ids is None:
        queries = encoder_hidden_states.new_empty(batch_size, query_length, 0)
        return create_bidirectional_mask(config, queries, attention_mask, encoder_hidden_states=encoder_hidden_states)
    device = encoder_hidden_states.device
    sources = (
        torch.zeros(batch_size, source_length, device=device) if encoder_sequence_ids is None else encoder_sequence_ids
    )
    targets = (
        torch.zeros(batch_size, query_length, device=device) if decoder_sequence_ids is None else decoder_sequence_ids
    )

    def of_one_pair(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        return targets[batch, query] == sources[batch, key]

    return _mask_by_rule(config, encoder_hidden_states, of_one_pair, attention_mask, query_length=query_length)


def _mask_by_rule(
    config: MiniLMConfig,
    keys: torch.Tensor,
    rule: Any,
    attention_mask: torch.Tensor | None,
    *,
    query_length: int,
) -> Mask:
    """Build a mask from a rule as transformers' mask functions take it, for T queries and keys of shape [B, S, E]."""
    refuse_unseparated_rows(config._attn_implementation)
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=keys.shape[0],
        q_length=query_length,
        kv_length=keys.shape[1],
        mask_function=rule,
        attention_mask=None if attention_mask is None else attention_mask.bool(),
        allow_is_causal_skip=False,
        dtype=keys.dtype,
        config=config,
        device=keys.device,
    )


def _seen(config: MiniLMConfig, *, slides: bool) -> Any:
    """Give the rule by which one token sees another, as transformers' mask functions take it."""
    if slides:
        window = cast(int, config.sliding_window)
        build = sliding_window_causal_mask_function if config.is_causal else sliding_window_bidirectional_mask_function
        return build(window)
    return causal_mask_function if config.is_causal else bidirectional_mask_function
