"""ModernBERT (Warner et al. 2024, arXiv:2412.13663) and its decoder (Weller et al. 2025, arXiv:2507.11412).

Rotary positions and windows by layer type, no token types, and dense, activation and norm before every projection.
"""

from typing import Any

from .architecture import Architecture, Head
from .tensors import Fused, Names

_KINDS = ("full_attention", "sliding_attention")
_USUAL_WINDOW = 128  # where no layer has one, the native configuration names one nevertheless


class ModernBertFamily(Architecture):
    """What a table cannot say of both: the window is the whole width, and each layer type has its angles."""

    def our_fields(self, native: Any) -> dict[str, Any]:
        """Add window and angles."""
        fields = super().our_fields(native)
        width = native.local_attention or _USUAL_WINDOW
        is_read = "sliding_attention" in native.layer_types or width != _USUAL_WINDOW
        fields["sliding_window"] = width // 2 if is_read else None
        angles = {kind: _whole_heads(native.rope_parameters[kind]) for kind in _KINDS}
        is_one = angles["full_attention"] == angles["sliding_attention"]
        fields["rope_parameters"] = angles["full_attention"] if is_one else angles
        return fields

    def native_fields(self, ours: Any) -> dict[str, Any]:
        """Add window and angles."""
        fields = super().native_fields(ours)
        fields["local_attention"] = _USUAL_WINDOW if ours.sliding_window is None else 2 * ours.sliding_window
        # A layer type that no layer is of has angles too.
        common, given = ours.rope_parameters_of(ours.layer_types[0]), ours.rope_parameters or {}
        fields["rope_parameters"] = {kind: _whole_heads(given.get(kind, common)) for kind in _KINDS}
        if ours.classifier_dropout is None:
            fields["classifier_dropout"] = ours.hidden_dropout
        # Read by no class, but checked: the defaults lie outside of a small vocabulary.
        fields["cls_token_id"] = ours.bos_token_id
        fields["sep_token_id"] = ours.eos_token_id if isinstance(ours.eos_token_id, int) else ours.bos_token_id
        return fields


class ModernBertEncoder(ModernBertFamily):
    """What a table cannot say of the encoder alone: how it calls what a classifier of texts reads."""

    def our_fields(self, native: Any) -> dict[str, Any]:
        """Add the pooling."""
        pooling = "mean" if native.classifier_pooling == "mean" else "first"
        return {**super().our_fields(native), "classifier_pooling": pooling}

    def native_fields(self, ours: Any) -> dict[str, Any]:
        """Add the pooling."""
        pooling = "mean" if ours.classifier_pooling == "mean" else "cls"
        return {**super().native_fields(ours), "classifier_pooling": pooling}


class ModernBertDecoder(ModernBertFamily):
    """What a table cannot say of the decoder alone: it always has a padding token and one that begins a text."""

    def native_fields(self, ours: Any) -> dict[str, Any]:
        """Give it the first token where there is none."""
        fields = super().native_fields(ours)
        needed = ("pad_token_id", "bos_token_id", "cls_token_id", "sep_token_id")
        return fields | {name: 0 for name in needed if fields[name] is None}


def _whole_heads(angles: dict[str, Any]) -> dict[str, Any]:
    """Leave out a share of the head that is turned: ModernBERT turns all of it, whatever is written there."""
    return {name: value for name, value in angles.items() if name != "partial_rotary_factor"}


SAME_FIELDS = (
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
)
FIXED_FIELDS = {
    "position_embedding": "rope",
    "norm": "layer_norm",
    "norm_placement": "pre",
    "embedding_norm": True,
    "first_attention_norm": False,
    "feed_forward": "gated",
    "type_vocab_size": 0,
}
TRAINING_FIELDS = frozenset(
    (
        "attention_dropout",
        "mlp_dropout",
        "embedding_dropout",
        "classifier_dropout",
        "initializer_range",
        "initializer_cutoff_factor",
    )
)
BODY_NAMES = (
    Names("embeddings.tokens", "embeddings.tok_embeddings"),
    Names("embeddings.norm", "embeddings.norm"),
    Names("layers.{}.attention_norm", "layers.{}.attn_norm"),  # there is none in the first layer
    Names("layers.{}.attention.output", "layers.{}.attn.Wo"),
    Names("layers.{}.feed_forward_norm", "layers.{}.mlp_norm"),
    Names(("layers.{}.feed_forward.gate", "layers.{}.feed_forward.up"), "layers.{}.mlp.Wi", Fused(2)),
    Names("layers.{}.feed_forward.down", "layers.{}.mlp.Wo"),
    Names("norm", "final_norm"),
)
_OF_ATTENTION = ("layers.{}.attention.query", "layers.{}.attention.key", "layers.{}.attention.value")
_TRANSFORM = (Names("transform.dense", "head.dense"), Names("transform.norm", "head.norm"))
_CLASSIFIERS = {"classifier_transform": True}

MODERNBERT = ModernBertEncoder(
    name="modernbert",
    config="ModernBertConfig",
    same=SAME_FIELDS,
    fixed={**FIXED_FIELDS, "is_causal": False},
    native_fixed={},
    ignored=frozenset(
        ("cls_token_id", "sep_token_id", "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index")
    ),
    training=TRAINING_FIELDS,
    body=(*BODY_NAMES, Names(_OF_ATTENTION, "layers.{}.attn.Wqkv", Fused(3))),
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
MODERNBERT_DECODER = ModernBertDecoder(
    name="modernbert-decoder",
    config="ModernBertDecoderConfig",
    same=(*SAME_FIELDS, ("classifier_bias", "classifier_bias")),
    fixed={**FIXED_FIELDS, "is_causal": True},
    native_fixed={},
    ignored=frozenset(("cls_token_id", "sep_token_id")),
    training=TRAINING_FIELDS,
    notes=(
        "training with TRL: its fused head leaves out the layer before the vocabulary, and so trains another function "
        "than this model computes, ours and the native one alike",
    ),
    body=(
        *BODY_NAMES,
        *(Names(name, f"layers.{{}}.attn.{letter}_proj") for name, letter in zip(_OF_ATTENTION, "qkv", strict=True)),
    ),
    heads=(
        Head(
            "MiniLMForCausalLM",
            "ModernBertDecoderForCausalLM",
            (
                Names("transform.dense", "lm_head.dense"),
                Names("transform.norm", "lm_head.norm"),
                Names("lm_head", "decoder"),
            ),
            fixed={"causal_transform": True},
        ),
        Head(
            "MiniLMForSequenceClassification",
            "ModernBertDecoderForSequenceClassification",
            (*_TRANSFORM, Names("classifier", "classifier")),
            fixed=_CLASSIFIERS,
        ),
        Head("MiniLMModel", "ModernBertDecoderModel", prefix=""),
    ),
)
