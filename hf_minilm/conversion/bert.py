"""BERT (Devlin et al. 2019, arXiv:1810.04805)."""

from typing import Any

from transformers import PreTrainedConfig

from .architecture import Architecture, Head
from .tensors import Copies, Names

LAYER_NAMES = (
    Names("layers.{}.attention.query", "encoder.layer.{}.attention.self.query"),
    Names("layers.{}.attention.key", "encoder.layer.{}.attention.self.key"),
    Names("layers.{}.attention.value", "encoder.layer.{}.attention.self.value"),
    Names("layers.{}.attention.output", "encoder.layer.{}.attention.output.dense"),
    Names("layers.{}.attention_norm", "encoder.layer.{}.attention.output.LayerNorm"),
    Names("layers.{}.feed_forward.up", "encoder.layer.{}.intermediate.dense"),
    Names("layers.{}.feed_forward.down", "encoder.layer.{}.output.dense"),
    Names("layers.{}.feed_forward_norm", "encoder.layer.{}.output.LayerNorm"),
)
EMBEDDING_NAMES = (
    Names("embeddings.tokens", "embeddings.word_embeddings"),
    Names("embeddings.token_types", "embeddings.token_type_embeddings"),
    Names("embeddings.norm", "embeddings.LayerNorm"),
)
SAME_FIELDS = (
    ("vocab_size", "vocab_size"),
    ("hidden_size", "hidden_size"),
    ("num_hidden_layers", "num_hidden_layers"),
    ("num_attention_heads", "num_attention_heads"),
    ("intermediate_size", "intermediate_size"),
    ("hidden_act", "hidden_act"),
    ("max_position_embeddings", "max_position_embeddings"),
    ("type_vocab_size", "type_vocab_size"),
    ("norm_eps", "layer_norm_eps"),
    ("hidden_dropout", "hidden_dropout_prob"),
    ("attention_dropout", "attention_probs_dropout_prob"),
    ("classifier_dropout", "classifier_dropout"),
    ("initializer_range", "initializer_range"),
)
FIXED_FIELDS = {
    "position_embedding": "learned",
    "norm": "layer_norm",
    "norm_placement": "post",
    "norm_bias": True,
    "embedding_norm": True,
    "feed_forward": "plain",
    "attention_bias": True,
    "feed_forward_bias": True,
    "scale_residual_initializer": False,
    "is_causal": False,
}
NATIVE_FIXED_FIELDS = {"is_decoder": False, "add_cross_attention": False}
TRAINING_FIELDS = frozenset(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range")
)
MASKED_FIELDS = {"prediction_transform": True, "output_bias": True}
DERIVED = (r"embeddings\.position_ids$", r"embeddings\.token_type_ids$")

_PREDICTION_NAMES = (
    Names("transform.dense", "cls.predictions.transform.dense"),
    Names("transform.norm", "cls.predictions.transform.LayerNorm"),
    Names("lm_head.weight", "cls.predictions.decoder.weight"),
    Names("lm_head.bias", ("cls.predictions.decoder.bias", "cls.predictions.bias"), Copies()),
)
_ORDER_NAMES = (Names("pooler.dense", "bert.pooler.dense"), Names("next_sentence", "cls.seq_relationship"))


class BertFamily(Architecture):
    """BERT always has a segment."""

    def native_fields(self, ours: PreTrainedConfig) -> dict[str, Any]:
        """Give it one at least."""
        fields = super().native_fields(ours)
        return {**fields, "type_vocab_size": max(fields["type_vocab_size"], 1)}


BERT = BertFamily(
    name="bert",
    config="BertConfig",
    same=SAME_FIELDS,
    fixed=FIXED_FIELDS,
    native_fixed=NATIVE_FIXED_FIELDS,
    training=TRAINING_FIELDS,
    derived=DERIVED,
    body=(*EMBEDDING_NAMES, Names("positions.table", "embeddings.position_embeddings"), *LAYER_NAMES),
    heads=(
        Head(
            "MiniLMForMaskedLM",
            "BertForMaskedLM",
            _PREDICTION_NAMES,
            fixed=MASKED_FIELDS,
            dropped=("bert.pooler.",),
        ),
        Head(
            "MiniLMForPreTraining",
            "BertForPreTraining",
            (*_PREDICTION_NAMES, *_ORDER_NAMES),
            fixed=MASKED_FIELDS,
            reads_padding=True,
        ),
        Head("MiniLMForNextSentencePrediction", "BertForNextSentencePrediction", _ORDER_NAMES, reads_padding=True),
        Head(
            "MiniLMForSequenceClassification",
            "BertForSequenceClassification",
            (Names("pooler.dense", "bert.pooler.dense"), Names("classifier", "classifier")),
            reads_padding=True,
        ),
        Head(
            "MiniLMForTokenClassification",
            "BertForTokenClassification",
            (Names("classifier", "classifier"),),
            dropped=("bert.pooler.",),
        ),
        Head(
            "MiniLMForQuestionAnswering",
            "BertForQuestionAnswering",
            (Names("qa_outputs", "qa_outputs"),),
            dropped=("bert.pooler.",),
            needs={"num_labels": 2},
        ),
        Head(
            "MiniLMForMultipleChoice",
            "BertForMultipleChoice",
            (Names("pooler.dense", "bert.pooler.dense"), Names("score", "classifier")),
            reads_padding=True,
        ),
        Head("MiniLMModel", "BertModel", prefix="", arguments={"add_pooling_layer": False}, dropped=("pooler.",)),
    ),
)
