"""What stands around attention: norms, the feed-forward, the layer that joins them, and the token embeddings.

Shapes: B batch, T positions, E hidden size, F inner size of the feed-forward, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import FLASH_BOUNDS, Attention, Mask, residual_projection
from .configuration_minilm import MiniLMConfig
from .losses import Labels, Targets, predicted_positions
from .positions import PositionScheme, Rotation


def build_norm(config: MiniLMConfig) -> nn.Module:
    """Build a layer norm (Ba et al. 2016) or an RMS norm (Zhang and Sennrich 2019) over the hidden size."""
    if config.norm == "rms_norm":
        return nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class FeedForward(nn.Module):
    """Two projections with an activation between, for each token alone (Vaswani et al. 2017, equation 2).

    Gated (Shazeer 2020, equation 6): the activation of a third projection multiplies the inner features.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        width, inner_width, bias = config.hidden_size, cast(int, config.intermediate_size), config.feed_forward_bias
        self.gate = nn.Linear(width, inner_width, bias=bias) if config.feed_forward == "gated" else None
        self.up = nn.Linear(width, inner_width, bias=bias)
        self.down = residual_projection(inner_width, width, bias=bias)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform each token's vector, [B, T, E] to [B, T, E]."""
        if self.gate is None:
            return self.down(self.activation(self.up(hidden_states)))
        return self.down(self.activation(self.gate(hidden_states)) * self.up(hidden_states))


class Layer(GradientCheckpointingLayer):
    """Attention, then feed-forward, each with a residual connection and a norm before it or after the sum.

    Post-norm is the order of Vaswani et al. 2017 and BERT; pre-norm that of GPT-2, which trains without a warm-up
    (Xiong et al. 2020, arXiv:2002.04745). A decoder's layer attends to the encoder's text between the two (Vaswani et
    al. 2017, section 3.1).
    """

    def __init__(self, config: MiniLMConfig, layer_idx: int) -> None:
        super().__init__()
        # The configuration has derived it where it was None.
        self.layer_type = cast(list[str], config.layer_types)[layer_idx]
        self.attention = Attention(config, layer_idx)
        is_normed = layer_idx > 0 or config.first_attention_norm
        self.attention_norm = build_norm(config) if is_normed else nn.Identity()
        attends_elsewhere = config.cross_attention_hidden_size is not None
        self.cross_attention = Attention(config, layer_idx, is_cross=True) if attends_elsewhere else None
        self.cross_attention_norm = build_norm(config) if attends_elsewhere else None
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = build_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.norm_first = config.norm_placement == "pre"

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        *,
        attention_mask: Mask = None,
        rotation: Rotation | None = None,
        cross_attention_mask: Mask = None,
        **attention_arguments: Any,
    ) -> torch.Tensor:
        """Apply the sub-layers to [B, T, E].

        What has a gradient is given by position: re-entrant activation checkpointing follows no keyword.

        Args:
            hidden_states: [B, T, E].
            position_bias: As for `Attention.forward`, like the arguments not named here.
            encoder_hidden_states: The other text's vectors, for a layer with cross-attention.
            attention_mask: Who may look at whom within the text.
            rotation: The angles of self-attention.
            cross_attention_mask: Who may look at which of the other text's tokens.
            **attention_arguments: For self-attention and cross-attention alike.

        Raises:
            ValueError: If the layer has cross-attention and no other text is given.
        """

        def attend(tokens: torch.Tensor) -> torch.Tensor:
            own = {"attention_mask": attention_mask, "rotation": rotation, "position_bias": position_bias}
            return self.attention(tokens, **own, **attention_arguments)[0]

        def attend_elsewhere(tokens: torch.Tensor) -> torch.Tensor:
            # Direction and positions are those of the text itself, and some kernels would mask by them.
            other = {"is_causal": False, "position_ids": None, **dict.fromkeys(FLASH_BOUNDS)}
            other |= {"attention_mask": cross_attention_mask, "encoder_hidden_states": encoder_hidden_states}
            arguments = {**attention_arguments, **other}
            return cast(Attention, self.cross_attention)(tokens, **arguments)[0]

        hidden_states = self._add(attend, self.attention_norm, hidden_states)
        if self.cross_attention_norm is not None:
            if encoder_hidden_states is None:
                raise ValueError("encoder_hidden_states (None) must be given to a layer with cross-attention.")
            hidden_states = self._add(attend_elsewhere, self.cross_attention_norm, hidden_states)
        return self._add(self.feed_forward, self.feed_forward_norm, hidden_states)

    def _add(
        self, sub_layer: Callable[[torch.Tensor], torch.Tensor], norm: nn.Module, hidden_states: torch.Tensor
    ) -> torch.Tensor:
        """Add what a sub-layer makes of the tokens to them."""
        if self.norm_first:
            return hidden_states + self.dropout(sub_layer(norm(hidden_states)))
        return norm(hidden_states + self.dropout(sub_layer(hidden_states)))


class Embeddings(nn.Module):
    """A vector a token, plus one a segment and one a position where the configuration has them, normed and dropped."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        has_types = config.type_vocab_size > 0
        self.token_types = nn.Embedding(config.type_vocab_size, config.hidden_size) if has_types else None
        self.norm = build_norm(config) if config.embedding_norm else nn.Identity()
        self.scale = math.sqrt(config.hidden_size) if config.scale_embeddings else None
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        token_embeddings: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        positions: PositionScheme,
    ) -> torch.Tensor:
        """Add types and positions to token embeddings.

        Args:
            token_embeddings: [B, T, E].
            position_ids: [B or 1, T], from 0.
            token_type_ids: [B, T], 0 or 1; None is all 0.
            positions: The position scheme.

        Returns:
            [B, T, E].
        """
        embeddings = token_embeddings if self.scale is None else token_embeddings * self.scale
        if self.token_types is not None:
            if token_type_ids is None:
                # The same numbers as all zeros, without a gather over B x T.
                token_type_ids = torch.zeros(1, dtype=torch.long, device=token_embeddings.device)
            embeddings = embeddings + self.token_types(token_type_ids)
        added = positions.added_to_embeddings(position_ids)
        if added is not None:
            embeddings = embeddings + added.to(embeddings.dtype)
        return self.dropout(self.norm(embeddings))


class PredictionTransform(nn.Module):
    """Dense, activation and norm before the vocabulary (Devlin et al. 2019, appendix A.1's reference model)."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.feed_forward_bias)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = build_norm(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform [..., E] to [..., E]."""
        return self.norm(self.activation(self.dense(hidden_states)))


class Pooler(nn.Module):
    """The vector of a whole sequence, from that of its first token (Devlin et al. 2019, section 3.1)."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: torch.Tensor) -> torch.Tensor:
        """Transform [..., E] to [..., E]."""
        return torch.tanh(self.dense(first))


def pooling_of(config: Any) -> str:
    """Say which vector stands for a text: not the first under causal attention, which has seen only itself."""
    return config.classifier_pooling or ("last" if config.is_causal else "first")


def pooled(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """Make one vector [B, E] of a sequence [B, T, E], padded on either side.

    Args:
        hidden_states: [B, T, E].
        attention_mask: 1 for tokens and 0 for padding [B, T]; with a cache, [B, earlier + T]; None where there is no
            padding.
        pooling: `first` or `last` token, or the `mean` of all.

    Raises:
        ValueError: If the mask has another form.
    """
    if attention_mask is not None and attention_mask.dim() != 2:
        raise ValueError(
            f"attention_mask {list(attention_mask.shape)} must be [rows, tokens] where a vector stands for a text; "
            "give the mask of the padding."
        )
    if pooling == "first" and attention_mask is None:
        return hidden_states[:, 0]
    if attention_mask is None:
        mask = torch.ones(hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device)
    else:
        # The device is the last one's, of a model that is spread over several.
        mask = attention_mask[:, -hidden_states.shape[1] :].to(hidden_states.device)
    if pooling == "mean":
        weights = mask.to(hidden_states.dtype)[..., None]
        return (hidden_states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    # Left padding moves the first token, right padding the last.
    chosen = (mask * (places + 1 if pooling == "last" else mask.shape[1] - places)).argmax(dim=1)
    return hidden_states[torch.arange(hidden_states.shape[0], device=mask.device), chosen]


def first_tokens(
    hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, next_sentence_label: Labels
) -> torch.Tensor:
    """Pick the vectors that stand for whole sequences.

    Args:
        hidden_states: [B, T, E].
        attention_mask: As for `pooled`; a mask of another form says nothing of where a row begins.
        next_sentence_label: [B] or None: one sequence a row, which its first token stands for. [B, T]: packed rows,
            with a label at the first token of each sequence and `IGNORED` elsewhere, or `Targets` of these. [B, 1] is
            as [B].

    Returns:
        [B, E], or [number of packed sequences, E] in row order.
    """
    labels = next_sentence_label
    if isinstance(labels, Targets) or (labels is not None and labels.shape == hidden_states.shape[:2]):
        return predicted_positions(hidden_states, labels)[0]
    is_of_padding = attention_mask is not None and attention_mask.dim() == 2
    return pooled(hidden_states, attention_mask if is_of_padding else None, "first")
