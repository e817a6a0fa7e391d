"""Small language models of your own for Hugging Face transformers, with their own attention and positions.

Importing this package registers its classes with transformers' Auto classes, and does nothing else.
"""

from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from .model.configuration_minilm import MiniLMConfig
from .model.configuration_minilm_seq2seq import MiniLMSeq2SeqConfig
from .model.modeling_minilm import (
    MiniLMForCausalLM,
    MiniLMForMaskedLM,
    MiniLMForMultipleChoice,
    MiniLMForNextSentencePrediction,
    MiniLMForPreTraining,
    MiniLMForQuestionAnswering,
    MiniLMForSequenceClassification,
    MiniLMForTokenClassification,
    MiniLMModel,
    MiniLMPreTrainedModel,
)
from .model.modeling_minilm_seq2seq import (
    MiniLMForConditionalGeneration,
    MiniLMSeq2SeqModel,
    MiniLMSeq2SeqPreTrainedModel,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "MiniLMConfig",
    "MiniLMForCausalLM",
    "MiniLMForConditionalGeneration",
    "MiniLMForMaskedLM",
    "MiniLMForMultipleChoice",
    "MiniLMForNextSentencePrediction",
    "MiniLMForPreTraining",
    "MiniLMForQuestionAnswering",
    "MiniLMForSequenceClassification",
    "MiniLMForTokenClassification",
    "MiniLMModel",
    "MiniLMPreTrainedModel",
    "MiniLMSeq2SeqConfig",
    "MiniLMSeq2SeqModel",
    "MiniLMSeq2SeqPreTrainedModel",
]

_CLASSES = {
    AutoModel: MiniLMModel,
    AutoModelForTextEncoding: MiniLMModel,
    AutoModelForPreTraining: MiniLMForPreTraining,
    AutoModelForMaskedLM: MiniLMForMaskedLM,
    AutoModelForNextSentencePrediction: MiniLMForNextSentencePrediction,
    AutoModelForCausalLM: MiniLMForCausalLM,
    AutoModelForSequenceClassification: MiniLMForSequenceClassification,
    AutoModelForTokenClassification: MiniLMForTokenClassification,
    AutoModelForQuestionAnswering: MiniLMForQuestionAnswering,
    AutoModelForMultipleChoice: MiniLMForMultipleChoice,
}
_SEQ2SEQ_CLASSES = {
    AutoModel: MiniLMSeq2SeqModel,
    AutoModelForSeq2SeqLM: MiniLMForConditionalGeneration,
}


def _register(config_class: type[PreTrainedConfig], classes: Mapping[Any, type[PreTrainedModel]]) -> None:
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    config_class.register_for_auto_class()
    for auto_class, model_class in classes.items():
        auto_class.register(config_class, model_class, exist_ok=True)
        # Only a class registered so is saved together with its code; the bare model as what it is first of all.
        model_class.register_for_auto_class("AutoModel" if model_class is MiniLMModel else auto_class.__name__)


_register(MiniLMConfig, _CLASSES)
_register(MiniLMSeq2SeqConfig, _SEQ2SEQ_CLASSES)
