"""A saved model and its tokenizer, opened with the head that it was saved with."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import hf_minilm  # noqa: F401 -- registers the architecture

from ..conversion.opening import open_config, open_weights
from ..conversion.tensors import refuse_tensors
from ..data.tokenizer import load_tokenizer

_HEADS: dict[str, Any] = {
    "ForPreTraining": AutoModelForPreTraining,
    "ForMaskedLM": AutoModelForMaskedLM,
    "ForCausalLM": AutoModelForCausalLM,
    "LMHeadModel": AutoModelForCausalLM,
    "ForNextSentencePrediction": AutoModelForNextSentencePrediction,
    "ForSequenceClassification": AutoModelForSequenceClassification,
    "ForTokenClassification": AutoModelForTokenClassification,
    "ForQuestionAnswering": AutoModelForQuestionAnswering,
}


def open_model(folder_or_name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a model of this package or of transformers, in float32, on CUDA where there is one, with no code of its own.

    Args:
        folder_or_name: A folder, or a name on the Hub.

    Raises:
        ValueError: If the folder does not say which head the model has, or has another one, or is damaged: a weight is
            missing, which would begin at random, or is not finite.
        OSError: If there is no such model.
    """
    if _is_path(folder_or_name) and not Path(folder_or_name).is_dir():
        raise FileNotFoundError(f"model ({folder_or_name}) must be a folder that exists; check the path.")
    config = open_config(folder_or_name)
    tokenizer = load_tokenizer(folder_or_name)
    model, missing, _ = open_weights(folder_or_name, _class_for(config, folder_or_name))
    refuse_tensors(missing=missing)
    _refuse_broken_weights(model, folder_or_name)
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"tokens of the tokenizer ({len(tokenizer)}) must be at most the model's {model.config.vocab_size}; "
            "give the tokenizer that belongs to the model."
        )
    return model.float().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _refuse_broken_weights(model: PreTrainedModel, name: str) -> None:
    for weight, values in model.named_parameters():
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"weights of the model ({name}, {weight}) must be finite; give one whose training went well."
            )


def _class_for(config: Any, name: str) -> Any:
    architecture = (config.architectures or ["none"])[0]
    found = next((auto for ending, auto in _HEADS.items() if architecture.endswith(ending)), None)
    if found is None:
        raise ValueError(f"model ({name}, {architecture}) must end in one of {', '.join(_HEADS)}; save it with a head.")
    return found


def _is_path(name: str) -> bool:
    """Return whether a name cannot be one on the Hub, which has one slash at most and begins with a letter or digit."""
    return name.startswith((".", "/", "~")) or name.rstrip("/").count("/") > 1


def model_folder(folder_or_name: str) -> Path | None:
    """Return the folder that a model lies in, None where its name is one on the Hub."""
    path = Path(folder_or_name)
    return path if path.is_dir() else None
