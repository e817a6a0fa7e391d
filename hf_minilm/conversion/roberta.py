"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): BERT with other heads, and positions counted from elsewhere."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from .architecture import Head, Inputs
from .bert import (
    DERIVED,
    EMBEDDING_NAMES,
    FIXED_FIELDS,
    LAYER_NAMES,
    MASKED_FIELDS,
    NATIVE_FIXED_FIELDS,
    SAME_FIELDS,
    TRAINING_FIELDS,
    BertFamily,
)
from .tensors import Copies, Names, RowsFrom


def first_position(config: Any) -> int:
    """Give the number of the first row of RoBERTa's position table that a token reads: after the padding token's."""
    return config.pad_token_id + 1


class Roberta(BertFamily):
    """RoBERTa counts positions from after the number of its padding token, and padding not at all."""

    def our_fields(self, native: PreTrainedConfig) -> dict[str, Any]:
        """Leave out the positions that no token has."""
        fields = super().our_fields(native)
        fields["max_position_embeddings"] -= first_position(native)
        return fields

    def native_fields(self, ours: PreTrainedConfig) -> dict[str, Any]:
        """Add the positions that no token has; without a padding token RoBERTa cannot count."""
        fields = super().native_fields(ours)
        if fields["pad_token_id"] is None:
            fields["pad_token_id"] = self.config_class().pad_token_id
        fields["max_position_embeddings"] += fields["pad_token_id"] + 1
        return fields

    def inputs_of_ours(self, inputs: Inputs, native: PreTrainedConfig) -> Inputs:  # noqa: ARG002
        """Count the positions of rows that are padded on the left from their first token."""
        mask: torch.Tensor = inputs["attention_mask"]
        return inputs if bool(mask[:, 0].all()) else {**inputs, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


ROBERTA = Roberta(
    name="roberta",
    config="RobertaConfig",
    same=SAME_FIELDS,
    fixed=FIXED_FIELDS,
    native_fixed=NATIVE_FIXED_FIELDS,
    training=TRAINING_FIELDS,
    derived=DERIVED,
    notes=(
        "positions: RoBERTa's table begins with rows that no token reads; ours leaves them out, and on the way back "
        "they are zeros",
        "padding on the left: RoBERTa counts positions from the first token; give ours position_ids to do so",
    ),
    body=(
        *EMBEDDING_NAMES,
        Names("positions.table", "embeddings.position_embeddings", RowsFrom(first_position)),
        *LAYER_NAMES,
    ),
    heads=(
        Head(
            "MiniLMForMaskedLM",
            "RobertaForMaskedLM",
            (
                Names("transform.dense", "lm_head.dense"),
                Names("transform.norm", "lm_head.layer_norm"),
                Names("lm_head.weight", "lm_head.decoder.weight"),
                Names("lm_head.bias", ("lm_head.decoder.bias", "lm_head.bias"), Copies()),
            ),
            fixed=MASKED_FIELDS,
            needs={"hidden_act": "gelu"},
            dropped=("roberta.pooler.",),
        ),
        Head(
            "MiniLMForSequenceClassification",
            "RobertaForSequenceClassification",
            (Names("pooler.dense", "classifier.dense"), Names("classifier", "classifier.out_proj")),
            dropped=("roberta.pooler.",),
            reads_padding=True,
        ),
        Head(
            "MiniLMForTokenClassification",
            "RobertaForTokenClassification",
            (Names("classifier", "classifier"),),
            dropped=("roberta.pooler.",),
        ),
        Head(
            "MiniLMForQuestionAnswering",
            "RobertaForQuestionAnswering",
            (Names("qa_outputs", "qa_outputs"),),
            needs={"num_labels": 2},
            dropped=("roberta.pooler.",),
        ),
        Head(
            "MiniLMForMultipleChoice",
            "RobertaForMultipleChoice",
            (Names("pooler.dense", "roberta.pooler.dense"), Names("score", "classifier")),
            reads_padding=True,
        ),
        Head("MiniLMModel", "RobertaModel", prefix="", arguments={"add_pooling_layer": False}, dropped=("pooler.",)),
    ),
)
