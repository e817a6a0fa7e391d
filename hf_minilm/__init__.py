"""Small language models of your own for Hugging Face transformers, with their own attention and positions.

Importing this package registers its classes with transformers' Auto classes, and does nothing else.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
)

from .model.configuration_minilm import MiniLMConfig
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

__version__ = "0.1.0.dev0"

__all__ = [
    "MiniLMConfig",
    "MiniLMForCausalLM",
    "MiniLMForMaskedLM",
    "MiniLMForMultipleChoice",
    "MiniLMForNextSentencePrediction",
    "MiniLMForPreTraining",
    "MiniLMForQuestionAnswering",
    "MiniLMForSequenceClassification",
    "MiniLMForTokenClassification",
    "MiniLMModel",
    "MiniLMPreTrainedModel",
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


def _register() -> None:
    AutoConfig.register(MiniLMConfig.model_type, MiniLMConfig, exist_ok=True)
    MiniLMConfig.register_for_auto_class()
    for auto_class, model_class in _CLASSES.items():
        auto_class.register(MiniLMConfig, model_class, exist_ok=True)
        # Only a class registered so is saved together with its code.
        model_class.register_for_auto_class("AutoModel" if model_class is MiniLMModel else auto_class.__name__)


_register()
