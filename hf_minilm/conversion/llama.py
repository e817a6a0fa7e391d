"""Llama (Touvron et al. 2023, arXiv:2302.13971) and those of its family that differ in a choice: Mistral, Qwen3.

SmolLM2 is a Llama by its configuration. Qwen2 is not among them, as it has biases on queries, keys and values alone,
nor OLMo2, which norms the queries of all heads together and adds before it norms.
"""

from typing import Any

from transformers import PreTrainedConfig

from .architecture import Architecture, Head
from .tensors import Names

SAME_FIELDS = (
    ("vocab_size", "vocab_size"),
    ("hidden_size", "hidden_size"),
    ("num_hidden_layers", "num_hidden_layers"),
    ("num_attention_heads", "num_attention_heads"),
    ("num_key_value_heads", "num_key_value_heads"),
    ("head_dim", "head_dim"),
    ("intermediate_size", "intermediate_size"),
    ("hidden_act", "hidden_act"),
    ("max_position_embeddings", "max_position_embeddings"),
    ("rope_parameters", "rope_parameters"),
    ("norm_eps", "rms_norm_eps"),
    ("attention_dropout", "attention_dropout"),
    ("initializer_range", "initializer_range"),
)
FIXED_FIELDS = {
    "position_embedding": "rope",
    "norm": "rms_norm",
    "norm_placement": "pre",
    "embedding_norm": False,
    "feed_forward": "gated",
    "qk_norm": False,
    "type_vocab_size": 0,
    "prediction_transform": False,
    "scale_residual_initializer": False,
    "is_causal": True,
}
TRAINING_FIELDS = frozenset(("attention_dropout", "initializer_range"))
BODY_NAMES = (
    Names("embeddings.tokens", "embed_tokens"),
    Names("layers.{}.attention.query", "layers.{}.self_attn.q_proj"),
    Names("layers.{}.attention.key", "layers.{}.self_attn.k_proj"),
    Names("layers.{}.attention.value", "layers.{}.self_attn.v_proj"),
    Names("layers.{}.attention.output", "layers.{}.self_attn.o_proj"),
    Names("layers.{}.attention_norm", "layers.{}.input_layernorm"),
    Names("layers.{}.feed_forward.gate", "layers.{}.mlp.gate_proj"),
    Names("layers.{}.feed_forward.up", "layers.{}.mlp.up_proj"),
    Names("layers.{}.feed_forward.down", "layers.{}.mlp.down_proj"),
    Names("layers.{}.feed_forward_norm", "layers.{}.post_attention_layernorm"),
    Names("norm", "norm"),
)
QK_NORM_NAMES = (
    Names("layers.{}.attention.query_norm", "layers.{}.self_attn.q_norm"),
    Names("layers.{}.attention.key_norm", "layers.{}.self_attn.k_norm"),
)
DERIVED = (r"rotary_emb\.inv_freq$",)


def family_heads(family: str) -> tuple[Head, ...]:
    """List the heads that all of the family have, under the names of one of them."""
    return (
        Head("MiniLMForCausalLM", f"{family}ForCausalLM", (Names("lm_head", "lm_head"),), fixed={"output_bias": False}),
        Head(
            "MiniLMForSequenceClassification",
            f"{family}ForSequenceClassification",
            (Names("classifier", "score"),),
            fixed={"classifier_bias": False},
        ),
        Head("MiniLMForTokenClassification", f"{family}ForTokenClassification", (Names("classifier", "score"),)),
        Head("MiniLMForQuestionAnswering", f"{family}ForQuestionAnswering", (Names("qa_outputs", "qa_outputs"),)),
        Head("MiniLMModel", f"{family}Model", prefix=""),
    )


class RotaryFamily(Architecture):
    """One set of rotary parameters for all layers, and all features of a head turned."""

    def native_fields(self, ours: PreTrainedConfig) -> dict[str, Any]:
        """Give the parameters of the first layer, for all features."""
        fields = super().native_fields(ours)
        parameters = dict(ours.rope_parameters_of(ours.layer_types[0]))
        if parameters.get("partial_rotary_factor") != 1.0:
            parameters.pop("partial_rotary_factor", None)
        fields["rope_parameters"] = parameters or None
        return fields


class MistralArchitecture(RotaryFamily):
    """A window for all layers or for none."""

    def our_fields(self, native: PreTrainedConfig) -> dict[str, Any]:
        """Say the window for every layer."""
        fields = super().our_fields(native)
        kind = "full_attention" if native.sliding_window is None else "sliding_attention"
        return {**fields, "layer_types": [kind] * native.num_hidden_layers, "sliding_window": native.sliding_window}

    def native_fields(self, ours: PreTrainedConfig) -> dict[str, Any]:
        """Give the window, which all layers then have."""
        return {**super().native_fields(ours), "sliding_window": ours.sliding_window}


class Qwen3Architecture(RotaryFamily):
    """A window for some layers."""

    def our_fields(self, native: PreTrainedConfig) -> dict[str, Any]:
        """Leave the window out where no layer has it."""
        slides = "sliding_attention" in native.layer_types
        return {**super().our_fields(native), "sliding_window": native.sliding_window if slides else None}

    def native_fields(self, ours: PreTrainedConfig) -> dict[str, Any]:
        """Say that there is a window where there is."""
        slides = ours.sliding_window is not None
        return {**super().native_fields(ours), "sliding_window": ours.sliding_window, "use_sliding_window": slides}


LLAMA = RotaryFamily(
    name="llama",
    config="LlamaConfig",
    same=(*SAME_FIELDS, ("attention_bias", "attention_bias"), ("feed_forward_bias", "mlp_bias")),
    fixed=FIXED_FIELDS,
    native_fixed={},
    ignored=frozenset(("pretraining_tp",)),
    training=TRAINING_FIELDS,
    derived=DERIVED,
    body=BODY_NAMES,
    heads=family_heads("Llama"),
)
MISTRAL = MistralArchitecture(
    name="mistral",
    config="MistralConfig",
    same=SAME_FIELDS,
    fixed={**FIXED_FIELDS, "attention_bias": False, "feed_forward_bias": False},
    native_fixed={},
    training=TRAINING_FIELDS,
    derived=DERIVED,
    divides_width=False,
    body=BODY_NAMES,
    heads=family_heads("Mistral"),
)
QWEN3 = Qwen3Architecture(
    name="qwen3",
    config="Qwen3Config",
    same=(*SAME_FIELDS, ("attention_bias", "attention_bias"), ("layer_types", "layer_types")),
    fixed={**FIXED_FIELDS, "qk_norm": True, "feed_forward_bias": False},
    native_fixed={},
    # Said by `layer_types`; a window that no layer has is not read.
    ignored=frozenset(("max_window_layers", "use_sliding_window", "sliding_window")),
    training=TRAINING_FIELDS,
    derived=DERIVED,
    divides_width=False,
    body=(*BODY_NAMES, *QK_NORM_NAMES),
    heads=family_heads("Qwen3"),
)
