"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): rotary positions and windows by layer type, no token types.

Its decoder, `modernbert-decoder`, is no twin of ours: dense, activation and norm stand before its vocabulary, where our
causal head has the projection alone.
"""

from typing import Any

from .architecture import Architecture, Head
from .tensors import Fused, Names

_KINDS = ("full_attention", "sliding_attention")
_USUAL_WINDOW = 128  # where no layer has one, the native configuration names one nevertheless
_TRANSFORM = (Names("transform.dense", "head.dense"), Names("transform.norm", "head.norm"))
_CLASSIFIERS = {"classifier_transform": True}


class ModernBert(Architecture):
    """What the table of ModernBERT cannot say: its window is the whole width, and each layer type has its angles."""

    def our_fields(self, native: Any) -> dict[str, Any]:
        """Add window, angles and pooling."""
        fields = super().our_fields(native)
        is_sliding = "sliding_attention" in native.layer_types or native.local_attention != _USUAL_WINDOW
        fields["sliding_window"] = native.local_attention // 2 if is_sliding else None
        angles = {kind: _whole_heads(native.rope_parameters[kind]) for kind in _KINDS}
        fields["rope_parameters"] = angles["full_attention"] if len(set(map(str, angles.values()))) == 1 else angles
        fields["classifier_pooling"] = "mean" if native.classifier_pooling == "mean" else "first"
        return fields

    def native_fields(self, ours: Any) -> dict[str, Any]:
        """Add window, angles and pooling."""
        fields = super().native_fields(ours)
        fields["local_attention"] = _USUAL_WINDOW if ours.sliding_window is None else 2 * ours.sliding_window
        # A layer type that no layer is of has angles too.
        common, given = ours.rope_parameters_of(ours.layer_types[0]), ours.rope_parameters or {}
        fields["rope_parameters"] = {kind: _whole_heads(given.get(kind, common)) for kind in _KINDS}
        fields["classifier_pooling"] = "mean" if ours.classifier_pooling == "mean" else "cls"
        if ours.classifier_dropout is None:
            fields["classifier_dropout"] = ours.hidden_dropout
        return fields


def _whole_heads(angles: dict[str, Any]) -> dict[str, Any]:
    """Leave out a share of the head that is turned: ModernBERT turns all of it, whatever is written there."""
    return {name: value for name, value in angles.items() if name != "partial_rotary_factor"}


MODERNBERT = ModernBert(
    name="modernbert",
    config="ModernBertConfig",
    same=(
        ("vocab_size", "vocab_size"),
        ("hidden_size", "hidden_size"),
        ("num_hidden_layers", "num_hidden_layers"),
        ("num_attention_heads", "num_attention_heads"),
        ("intermediate_size", "intermediate_size"),
        ("hidden_act", "hidden_activation"),
        ("hidden_act", "classifier_activation"),
        ("max_position_embeddings", "max_position_embeddings"),
        ("layer_types", "layer_types"),
        ("norm_eps", "norm_eps"),
        ("norm_bias", "norm_bias"),
        ("attention_bias", "attention_bias"),
        ("feed_forward_bias", "mlp_bias"),
        ("feed_forward_bias", "classifier_bias"),
        ("output_bias", "decoder_bias"),
        ("attention_dropout", "attention_dropout"),
        ("hidden_dropout", "mlp_dropout"),
        ("hidden_dropout", "embedding_dropout"),
        ("classifier_dropout", "classifier_dropout"),
        ("initializer_range", "initializer_range"),
    ),
    fixed={
        "position_embedding": "rope",
        "norm": "layer_norm",
        "norm_placement": "pre",
        "embedding_norm": True,
        "first_attention_norm": False,
        "feed_forward": "gated",
        "type_vocab_size": 0,
        "is_causal": False,
    },
    native_fixed={},
    ignored=frozenset(
        ("cls_token_id", "sep_token_id", "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index")
    ),
    training=frozenset(
        (
            "attention_dropout",
            "mlp_dropout",
            "embedding_dropout",
            "classifier_dropout",
            "initializer_range",
            "initializer_cutoff_factor",
        )
    ),
    body=(
        Names("embeddings.tokens", "embeddings.tok_embeddings"),
        Names("embeddings.norm", "embeddings.norm"),
        Names("layers.{}.attention_norm", "layers.{}.attn_norm"),  # there is none in the first layer
        Names(
            ("layers.{}.attention.query", "layers.{}.attention.key", "layers.{}.attention.value"),
            "layers.{}.attn.Wqkv",
            Fused(3),
        ),
        Names("layers.{}.attention.output", "layers.{}.attn.Wo"),
        Names("layers.{}.feed_forward_norm", "layers.{}.mlp_norm"),
        Names(("layers.{}.feed_forward.gate", "layers.{}.feed_forward.up"), "layers.{}.mlp.Wi", Fused(2)),
        Names("layers.{}.feed_forward.down", "layers.{}.mlp.Wo"),
        Names("norm", "final_norm"),
    ),
    heads=(
        Head(
            "MiniLMForMaskedLM",
            "ModernBertForMaskedLM",
            (*_TRANSFORM, Names("lm_head", "decoder")),
            fixed={"prediction_transform": True},
        ),
        Head(
            "MiniLMForSequenceClassification",
            "ModernBertForSequenceClassification",
            (*_TRANSFORM, Names("classifier", "classifier")),
            fixed=_CLASSIFIERS,
            reads_padding=True,
        ),
        Head(
            "MiniLMForTokenClassification",
            "ModernBertForTokenClassification",
            (*_TRANSFORM, Names("classifier", "classifier")),
            fixed=_CLASSIFIERS,
        ),
        Head(
            "MiniLMForQuestionAnswering",
            "ModernBertForQuestionAnswering",
            (*_TRANSFORM, Names("qa_outputs", "classifier")),
            fixed=_CLASSIFIERS,
            needs={"num_labels": 2},
        ),
        Head(
            "MiniLMForMultipleChoice",
            "ModernBertForMultipleChoice",
            (*_TRANSFORM, Names("score", "classifier")),
            fixed=_CLASSIFIERS,
            reads_padding=True,
        ),
        Head("MiniLMModel", "ModernBertModel", prefix=""),
    ),
)
