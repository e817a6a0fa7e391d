"""Small language models of your own for Hugging Face transformers, with their own attention and positions.

Importing this package registers its classes with transformers' Auto classes, and does nothing else.
"""

from types import ModuleType

import transformers
from transformers import AutoConfig, PreTrainedConfig

from .model import modeling_minilm, modeling_minilm_seq2seq
from .model.configuration_minilm import AUTO_MAP, MiniLMConfig
from .model.configuration_minilm_seq2seq import SEQ2SEQ_AUTO_MAP, MiniLMSeq2SeqConfig
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


def _register(config_class: type[PreTrainedConfig], auto_map: dict[str, str], modeling: ModuleType) -> None:
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    config_class.register_for_auto_class()
    for auto_class, target in auto_map.items():
        if auto_class != "AutoConfig":
            model_class = getattr(modeling, target.partition(".")[2])
            getattr(transformers, auto_class).register(config_class, model_class, exist_ok=True)
            # Only a class registered so is saved together with its code; the bare model as what it is first of all.
            model_class.register_for_auto_class("AutoModel" if model_class is MiniLMModel else auto_class)


_register(MiniLMConfig, AUTO_MAP, modeling_minilm)
_register(MiniLMSeq2SeqConfig, SEQ2SEQ_AUTO_MAP, modeling_minilm_seq2seq)
