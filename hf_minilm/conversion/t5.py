"""T5 (Raffel et al. 2020, arXiv:1910.10683), version 1.0 with a tied output projection, and 1.1 with one of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from .architecture import Architecture, Head
from .tensors import Names, Operation, Pair, Tensors, paired, untie

_OLD_GELU = "gelu_new"
"""What `gated-gelu` means in T5's configuration: the tanh of Hendrycks and Gimpel 2016, not the error function."""


@dataclass(frozen=True)
class Scaled(Operation):
    """A tensor that is larger in ours, because the native model multiplies, or does not divide, where ours does not.

    Attributes:
        factor: How many times as large, from our configuration. Powers of two change no bit of the mantissa.
    """

    factor: Callable[[Any], float]

    def to_ours(self, native: Tensors, config: Any) -> Tensors:
        """Multiply."""
        return [_times(tensor, self.factor(config)) for tensor in native]

    def to_native(self, ours: Tensors, config: Any) -> Tensors:
        """Divide."""
        return [_times(tensor, 1 / self.factor(config)) for tensor in ours]


def _times(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    is_exact = math.frexp(factor)[0] == 0.5
    if not is_exact and tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"weights ({tensor.dtype}) must be float32 to be multiplied by {factor:.6g}, which would round them; "
            "convert them before."
        )
    return tensor if factor == 1 else tensor * factor


def _query_factor(config: Any) -> float:
    """T5 does not divide scores by sqrt(D): its queries are smaller instead."""
    return math.sqrt(config.encoder.head_dim)


def _last_norm_factor(config: Any) -> float:
    """With a tied output projection, T5 multiplies what goes into it by 1 / sqrt(E)."""
    return 1 / math.sqrt(config.decoder.hidden_size) if config.tie_word_embeddings else 1.0


def _attention(stack: str, native: str, ours: str) -> tuple[Names, ...]:
    """Name the projections of an attention."""
    here, there = f"{stack}.layers.{{{stack}}}.{ours}", f"{stack}.block.{{{stack}}}.{native}"
    return (
        Names(f"{here}.query", f"{there}.q", Scaled(_query_factor)),
        Names(f"{here}.key", f"{there}.k"),
        Names(f"{here}.value", f"{there}.v"),
        Names(f"{here}.output", f"{there}.o"),
    )


def _stack(stack: str, *, feed_forward: int) -> tuple[Names, ...]:
    """Name what both stacks have; the feed-forward is the encoder's second sub-layer and the decoder's third."""
    here, there = f"{stack}.layers.{{{stack}}}", f"{stack}.block.{{{stack}}}.layer"
    of_all_layers = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
    return (
        Names(f"{stack}.positions.table", of_all_layers),
        *_attention(stack, "layer.0.SelfAttention", "attention"),
        Names(f"{here}.attention_norm", f"{there}.0.layer_norm"),
        Names(f"{here}.feed_forward_norm", f"{there}.{feed_forward}.layer_norm"),
        Names(f"{here}.feed_forward.down", f"{there}.{feed_forward}.DenseReluDense.wo"),
    )


def _inner(stack: str, *, feed_forward: int, is_gated: bool) -> tuple[Names, ...]:
    """Name what goes into the feed-forward's activation."""
    here, there = f"{stack}.layers.{{{stack}}}.feed_forward", f"{stack}.block.{{{stack}}}.layer.{feed_forward}"
    if not is_gated:
        return (Names(f"{here}.up", f"{there}.DenseReluDense.wi"),)
    return (
        Names(f"{here}.gate", f"{there}.DenseReluDense.wi_0"),
        Names(f"{here}.up", f"{there}.DenseReluDense.wi_1"),
    )


class T5Architecture(Architecture):
    """What the table of T5 cannot say: how it writes the feed-forward's kind, and what being tied brings with it."""

    def our_fields(self, native: Any) -> dict[str, Any]:
        """Add kind and activation of the feed-forward, the declared length, and whether the projection is tied."""
        fields = super().our_fields(native)
        for stack in ("encoder", "decoder"):
            fields[f"{stack}.feed_forward"] = "gated" if native.is_gated_act else "plain"
            fields[f"{stack}.hidden_act"] = native.dense_act_fn
            # Written in T5's files and not read: its positions have no end.
            fields[f"{stack}.max_position_embeddings"] = getattr(native, "n_positions", 512)
        # T5's own field is True whatever the file says, for its loading looks at the tensors.
        fields["tie_word_embeddings"] = native.scale_decoder_outputs
        fields["decoder_start_token_id"] = getattr(native, "decoder_start_token_id", native.pad_token_id)
        return fields

    def native_fields(self, ours: Any) -> dict[str, Any]:
        """Add kind and activation of the feed-forward, and the declared length."""
        fields = super().native_fields(ours)
        activation = ours.encoder.hidden_act
        if ours.encoder.feed_forward == "gated":
            activation = f"gated-{'gelu' if activation == _OLD_GELU else activation}"
        fields["feed_forward_proj"] = activation
        fields["n_positions"] = ours.encoder.max_position_embeddings
        fields["tie_word_embeddings"] = ours.tie_word_embeddings
        fields["decoder_start_token_id"] = ours.decoder_start_token_id
        return fields

    def prepare(self, native: Any, ours: Any) -> None:
        """Give an untied projection a place of its own: T5's class ties it until it reads a file that has both."""
        if not ours.tie_word_embeddings and hasattr(native, "lm_head"):
            untie(native, "lm_head.weight")

    def pairs(self, ours: PreTrainedModel, native: PreTrainedModel, *, head: Head) -> list[Pair]:
        """Add the feed-forward, whose names tell its kind."""
        is_gated = ours.config.encoder.feed_forward == "gated"
        inner = [
            line
            for stack, place in (("encoder", 1), ("decoder", 2))
            for line in _inner(stack, feed_forward=place, is_gated=is_gated)
        ]
        return super().pairs(ours, native, head=head) + paired(inner, ours, native, prefixes=head.prefixes)

    def outputs_of_ours(self, outputs: dict[str, Any], ours: Any, head: Head) -> dict[str, Any]:
        """Undo what the decoder's last norm has taken over from the head."""
        states = outputs.get("decoder_hidden_states")
        if head.ours == "MiniLMSeq2SeqModel" or states is None:
            return outputs
        return {**outputs, "decoder_hidden_states": (*states[:-1], states[-1] / _last_norm_factor(ours))}


def _of_both(*fields: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Say that both stacks have the same, of which the encoder's is read."""
    return tuple((f"{stack}.{name}", native) for name, native in fields for stack in ("encoder", "decoder"))


T5 = T5Architecture(
    name="t5",
    config="T5Config",
    our_config="MiniLMSeq2SeqConfig",
    same=(
        ("encoder.num_hidden_layers", "num_layers"),
        ("decoder.num_hidden_layers", "num_decoder_layers"),
        ("decoder.use_cache", "use_cache"),
        *_of_both(
            ("vocab_size", "vocab_size"),
            ("hidden_size", "d_model"),
            ("num_attention_heads", "num_heads"),
            ("head_dim", "d_kv"),
            ("intermediate_size", "d_ff"),
            ("relative_attention_num_buckets", "relative_attention_num_buckets"),
            ("relative_attention_max_distance", "relative_attention_max_distance"),
            ("norm_eps", "layer_norm_epsilon"),
            ("hidden_dropout", "dropout_rate"),
            ("attention_dropout", "dropout_rate"),
        ),
    ),
    fixed={
        f"{stack}.{name}": value
        for name, value in {
            "position_embedding": "relative_bias",
            "norm": "rms_norm",
            "norm_placement": "pre",
            "attention_bias": False,
            "feed_forward_bias": False,
            "pad_token_id": None,  # T5 trains its padding token's vector, which begins every target
        }.items()
        for stack in ("encoder", "decoder")
    }
    | {"share_embeddings": True},
    native_fixed={"is_decoder": False, "is_encoder_decoder": True},
    training=frozenset(("dropout_rate", "initializer_factor", "classifier_dropout")),
    divides_width=False,
    body=(
        Names("encoder.embeddings.tokens", "shared"),
        *_stack("encoder", feed_forward=1),
        Names("encoder.norm", "encoder.final_layer_norm"),
        *_stack("decoder", feed_forward=2),
        *_attention("decoder", "layer.1.EncDecAttention", "cross_attention"),
        Names("decoder.layers.{decoder}.cross_attention_norm", "decoder.block.{decoder}.layer.1.layer_norm"),
    ),
    heads=(
        Head(
            "MiniLMForConditionalGeneration",
            "T5ForConditionalGeneration",
            (
                Names("model.decoder.norm", "decoder.final_layer_norm", Scaled(_last_norm_factor)),
                Names("lm_head", "lm_head"),
            ),
            prefix="",
        ),
        Head("MiniLMSeq2SeqModel", "T5Model", (Names("decoder.norm", "decoder.final_layer_norm"),), prefix=""),
    ),
)
