"""Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344): the encoder-decoder of Vaswani et al. 2017 with biases.

Its table of sinusoids holds all sines before all cosines, where ours follows the paper and interleaves them. Residual
sums, layer norms and projections do not care about the order of the hidden features, if all have the same: so every
weight that reads or writes them is reordered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from .architecture import Architecture, Head
from .tensors import Names, Operation, Pair, Tensors, paired

STACKS = ("encoder", "decoder")


def our_order(width: int) -> torch.Tensor:
    """Give for each of our hidden features its place in Marian: a sine, its cosine, the next sine."""
    return torch.arange(width).view(2, -1).T.flatten()


def native_order(width: int) -> torch.Tensor:
    """Give for each of Marian's hidden features its place in ours."""
    return our_order(width).argsort()


@dataclass(frozen=True)
class Reordered(Operation):
    """A projection, norm or table whose hidden features stand in another order.

    Attributes:
        reads: Whether it reads hidden features, which are its columns; else it writes them, and they are its rows.
    """

    reads: bool = False

    def to_ours(self, native: Tensors, config: Any) -> Tensors:
        """Interleave sines and cosines."""
        return [self._taken(tensor, our_order(config.hidden_size)) for tensor in native]

    def to_native(self, ours: Tensors, config: Any) -> Tensors:
        """Put the sines before the cosines."""
        return [self._taken(tensor, native_order(config.hidden_size)) for tensor in ours]

    def _taken(self, tensor: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        if not self.reads:
            return tensor[order.to(tensor.device)]
        return tensor if tensor.dim() == 1 else tensor[:, order.to(tensor.device)]


class Row(Operation):
    """A bias that the native model keeps as a table of one row."""

    def to_ours(self, native: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Take the row."""
        return [native[0][0]]

    def to_native(self, ours: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Make it a table."""
        return [ours[0][None]]


@dataclass(frozen=True)
class Computed(Operation):
    """A table of sinusoids that the native model keeps among its weights, and ours computes.

    Attributes:
        native: The module that has the table, and can write it.
        model: Ours, whose dtype when it is translated is that of the table.
    """

    native: Any
    model: PreTrainedModel

    def to_ours(self, native: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Leave it out: it is the same for every model."""
        return []

    def to_native(self, ours: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Let the native module write it."""
        return [self.native.create_weight().to(self.model.dtype)]


def _attention(stack: str, native: str, ours: str) -> tuple[Names, ...]:
    here, there = f"{stack}.layers.{{{stack}}}.{ours}", f"{stack}.layers.{{{stack}}}.{native}"
    return (
        *(
            Names(f"{here}.{name}", f"{there}.{letter}_proj", Reordered(reads=True))
            for name, letter in (("query", "q"), ("key", "k"), ("value", "v"))
        ),
        Names(f"{here}.output", f"{there}.out_proj", Reordered()),
        Names(f"{here}_norm", f"{there}_layer_norm", Reordered()),
    )


def _stack(stack: str) -> tuple[Names, ...]:
    layer = f"{stack}.layers.{{{stack}}}"
    return (
        *_attention(stack, "self_attn", "attention"),
        Names(f"{layer}.feed_forward.up", f"{layer}.fc1", Reordered(reads=True)),
        Names(f"{layer}.feed_forward.down", f"{layer}.fc2", Reordered()),
        Names(f"{layer}.feed_forward_norm", f"{layer}.final_layer_norm", Reordered()),
    )


class Marian(Architecture):
    """What the table of Marian cannot say: which tensor is the token embedding, and its positions and outputs."""

    def our_fields(self, native: Any) -> dict[str, Any]:
        """Share the token embedding where Marian's class ties it, which is only together with the projection."""
        fields = super().our_fields(native)
        fields["share_embeddings"] = native.share_encoder_decoder_embeddings and native.tie_word_embeddings
        return fields | {f"{stack}.pad_token_id": native.pad_token_id for stack in STACKS}

    def native_fields(self, ours: Any) -> dict[str, Any]:
        """Share likewise."""
        shared = ours.share_embeddings and ours.tie_word_embeddings
        return {**super().native_fields(ours), "share_encoder_decoder_embeddings": shared}

    def pairs(self, ours: PreTrainedModel, native: PreTrainedModel, *, head: Head) -> list[Pair]:
        """Add embeddings and positions."""
        body: Any = native.base_model
        tables = [Names("encoder.embeddings.tokens", "shared", Reordered(reads=True))]
        if not ours.config.share_embeddings:
            tables = [
                Names(f"{stack}.embeddings.tokens", f"{stack}.embed_tokens", Reordered(reads=True)) for stack in STACKS
            ]
        positions = [
            Pair(
                (),
                (f"{head.prefixes[1]}{stack}.embed_positions.weight",),
                Computed(getattr(body, stack).embed_positions, ours),
            )
            for stack in STACKS
        ]
        return super().pairs(ours, native, head=head) + paired(tables, ours, native, prefixes=head.prefixes) + positions

    def unround(self, native: Any, dtype: torch.dtype) -> None:
        """Compute the sinusoids anew where they are those of every Marian in that dtype, as ours are not rounded."""
        for stack in STACKS:
            positions = getattr(native.base_model, stack).embed_positions
            table, held = positions.create_weight().to(positions.weight.device), positions.weight.data
            if torch.equal(table.to(dtype).to(held.dtype), held):
                positions.weight.data = table.to(held.dtype)

    def outputs_of_ours(self, outputs: dict[str, Any], ours: Any, head: Head) -> dict[str, Any]:  # noqa: ARG002
        """Put sines before cosines in whatever shows hidden features."""
        order = native_order(ours.hidden_size)
        return {
            name: _in_order(output, order) if "hidden_state" in name else output for name, output in outputs.items()
        }


def _in_order(states: torch.Tensor | Sequence[torch.Tensor], order: torch.Tensor) -> Any:
    if isinstance(states, torch.Tensor):
        return states[..., order.to(states.device)]
    return tuple(_in_order(state, order) for state in states)


MARIAN = Marian(
    name="marian",
    config="MarianConfig",
    our_config="MiniLMSeq2SeqConfig",
    same=(
        ("encoder.vocab_size", "vocab_size"),
        ("decoder.vocab_size", "decoder_vocab_size"),
        ("decoder_start_token_id", "decoder_start_token_id"),
        ("decoder.use_cache", "use_cache"),
        *(
            (f"{stack}.{name}", native.format(stack))
            for name, native in (
                ("num_hidden_layers", "{}_layers"),
                ("num_attention_heads", "{}_attention_heads"),
                ("intermediate_size", "{}_ffn_dim"),
                ("hidden_size", "d_model"),
                ("max_position_embeddings", "max_position_embeddings"),
                ("hidden_act", "activation_function"),
                ("scale_embeddings", "scale_embedding"),
                ("hidden_dropout", "dropout"),
                ("attention_dropout", "attention_dropout"),
                ("initializer_range", "init_std"),
            )
            for stack in STACKS
        ),
    ),
    fixed={
        f"{stack}.{name}": value
        for name, value in {
            "position_embedding": "sinusoidal",
            "norm": "layer_norm",
            "norm_placement": "post",
            "norm_eps": 1e-5,
            "norm_bias": True,
            "feed_forward": "plain",
            "feed_forward_bias": True,
            "attention_bias": True,
        }.items()
        for stack in STACKS
    }
    | {"decoder.output_bias": True},
    native_fixed={"is_decoder": False, "is_encoder_decoder": True},
    ignored=frozenset(("forced_eos_token_id",)),  # what `generate` is told, and keeps
    training=frozenset(
        ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std")
    ),
    body=(
        *_stack("encoder"),
        *_stack("decoder"),
        *_attention("decoder", "encoder_attn", "cross_attention"),
    ),
    heads=(
        Head(
            "MiniLMForConditionalGeneration",
            "MarianMTModel",
            (
                Names("lm_head.weight", "lm_head.weight", Reordered(reads=True)),
                Names("lm_head.bias", "final_logits_bias", Row()),
            ),
        ),
        Head("MiniLMSeq2SeqModel", "MarianModel", prefix=""),
    ),
)
