"""GPT-2 (Radford et al. 2019)."""

from typing import Any

from transformers import PreTrainedConfig

from .architecture import Architecture, Head
from .tensors import Fused, Names, Transposed


class GPT2Architecture(Architecture):
    """GPT-2's inner width may be left to follow from the width."""

    def our_fields(self, native: PreTrainedConfig) -> dict[str, Any]:
        """Say the inner width."""
        fields = super().our_fields(native)
        if fields["intermediate_size"] is None:
            fields["intermediate_size"] = 4 * fields["hidden_size"]
        return fields

    def native_fields(self, ours: PreTrainedConfig) -> dict[str, Any]:
        """Leave it out where it follows, as GPT-2's own configurations do."""
        fields = super().native_fields(ours)
        if fields["n_inner"] == 4 * fields["n_embd"]:
            fields["n_inner"] = None
        return fields


GPT2 = GPT2Architecture(
    name="gpt2",
    config="GPT2Config",
    same=(
        ("vocab_size", "vocab_size"),
        ("hidden_size", "n_embd"),
        ("num_hidden_layers", "n_layer"),
        ("num_attention_heads", "n_head"),
        ("intermediate_size", "n_inner"),
        ("hidden_act", "activation_function"),
        ("max_position_embeddings", "n_positions"),
        ("norm_eps", "layer_norm_epsilon"),
        ("hidden_dropout", "resid_pdrop"),
        ("hidden_dropout", "embd_pdrop"),
        ("attention_dropout", "attn_pdrop"),
        ("initializer_range", "initializer_range"),
    ),
    fixed={
        "position_embedding": "learned",
        "norm": "layer_norm",
        "norm_placement": "pre",
        "norm_bias": True,
        "embedding_norm": False,
        "feed_forward": "plain",
        "attention_bias": True,
        "feed_forward_bias": True,
        "type_vocab_size": 0,
        "prediction_transform": False,
        "scale_residual_initializer": True,
        "is_causal": True,
    },
    native_fixed={
        "add_cross_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    },
    ignored=frozenset(
        (
            "reorder_and_upcast_attn",  # in what order and precision the same is computed
            *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),  # of another head
            "summary_first_dropout",
        )
    ),
    training=frozenset(("resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range")),
    derived=(r"attn\.(masked_)?bias$",),
    body=(
        Names("embeddings.tokens", "wte"),
        Names("positions.table", "wpe"),
        Names(
            ("layers.{}.attention.query", "layers.{}.attention.key", "layers.{}.attention.value"),
            "h.{}.attn.c_attn",
            Fused(3, transposed=True),
        ),
        Names("layers.{}.attention.output", "h.{}.attn.c_proj", Transposed()),
        Names("layers.{}.attention_norm", "h.{}.ln_1"),
        Names("layers.{}.feed_forward.up", "h.{}.mlp.c_fc", Transposed()),
        Names("layers.{}.feed_forward.down", "h.{}.mlp.c_proj", Transposed()),
        Names("layers.{}.feed_forward_norm", "h.{}.ln_2"),
        Names("norm", "ln_f"),
    ),
    heads=(
        Head("MiniLMForCausalLM", "GPT2LMHeadModel", (Names("lm_head", "lm_head"),), fixed={"output_bias": False}),
        Head(
            "MiniLMForSequenceClassification",
            "GPT2ForSequenceClassification",
            (Names("classifier", "score"),),
            fixed={"classifier_bias": False},
        ),
        Head("MiniLMForTokenClassification", "GPT2ForTokenClassification", (Names("classifier", "classifier"),)),
        Head("MiniLMForQuestionAnswering", "GPT2ForQuestionAnswering", (Names("qa_outputs", "qa_outputs"),)),
        Head("MiniLMModel", "GPT2Model", prefix=""),
    ),
)
