"""What stands in the way of a conversion, known from configurations alone.

A configuration is said in the other architecture's fields, and from there in its own again. A field that comes back
with another value is one that the other architecture cannot express, and the value that comes back is the nearest that
it can. So there is no second list of rules that could contradict the conversion.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from ..model.layers import pooling_of
from ..one_line import one_line
from .architecture import Architecture, Head, field_names
from .registry import ARCHITECTURES
from .tensors import get_field

TRAINING_FIELDS = frozenset(
    ("attention_dropout", "hidden_dropout", "classifier_dropout", "initializer_range", "scale_residual_initializer")
)
"""Fields of ours that change training and first weights, and not what a trained model computes."""

_MASKED = ("MiniLMForMaskedLM", "MiniLMForPreTraining")
_LANGUAGE_MODELS = (*_MASKED, "MiniLMForCausalLM", "MiniLMForConditionalGeneration")
_CLASSIFIERS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
_READ_BY: dict[str, tuple[str, ...]] = {
    "prediction_transform": _MASKED,
    "causal_transform": ("MiniLMForCausalLM",),
    "output_bias": _LANGUAGE_MODELS,
    "classifier_transform": tuple(f"MiniLMFor{task}" for task in _CLASSIFIERS),
    "classifier_bias": ("MiniLMForSequenceClassification",),
    "classifier_pooling": ("MiniLMForSequenceClassification", "MiniLMForMultipleChoice"),
    "tie_word_embeddings": _LANGUAGE_MODELS,
}
"""Fields that only some of our classes read."""

_CAUSAL = {"MiniLMForCausalLM": True, **dict.fromkeys((*_MASKED, "MiniLMForNextSentencePrediction"), False)}
"""Classes that give attention its direction, whatever the configuration says."""


_OF_THE_WHOLE = ("pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings")
_UNREAD = {"encoder": (*_OF_THE_WHOLE, "output_bias", "use_cache"), "decoder": _OF_THE_WHOLE}
"""Fields of a stack that are read only where it stands alone; its padding token is, in training."""


@dataclass(frozen=True)
class Obstacle:
    """A field that stands in the way.

    Attributes:
        name: The field's name; "" where several fields contradict each other.
        value: What it is.
        nearest: The nearest value that fits; for several fields, what is wrong.
    """

    name: str
    value: Any
    nearest: Any

    def __str__(self) -> str:
        """Say it in one clause."""
        return f"{self.name} ({_short(self.value)}) must be {_short(self.nearest)}" if self.name else str(self.nearest)


def expressible(config: PreTrainedConfig, head: str | None = None) -> dict[str, list[Obstacle]]:
    """Say which native architectures a configuration of ours can become, without any weights.

    Args:
        config: A configuration of ours.
        head: Name of our class that is to be converted; None: the one in `config.architectures`, or the bare model.

    Returns:
        For each architecture's name what stands in the way; nothing where it can become that.
    """
    our_class = head or (config.architectures or [""])[0]
    return {name: export_obstacles(config, architecture, our_class) for name, architecture in ARCHITECTURES.items()}


def expressible_line(config: PreTrainedConfig, head: str) -> str:
    """Say the same in a line for a person: what it can become, or what the nearest architecture would ask for."""
    found = expressible(config, head)
    free = [name for name, obstacles in found.items() if not obstacles]
    if free:
        return f"native twins: {', '.join(free)} (hf-minilm export)"
    near = {name: some for name, some in found.items() if all(o.name != "model_type" for o in some)}
    if not near:
        return "native twins: none"
    name = min(near, key=lambda each: len(near[each]))
    return f"native twins: none; for the nearest, {name}, {'; '.join(map(str, near[name]))}"


def export_obstacles(config: PreTrainedConfig, architecture: Architecture, our_class: str) -> list[Obstacle]:
    """List what keeps a class of ours from becoming a native one."""
    if config.model_type != architecture.our_config_class.model_type:
        return [Obstacle("model_type", config.model_type, architecture.our_config_class.model_type)]
    head = architecture.head_of(our_class)
    try:
        back = architecture.to_our_config(architecture.to_native_config(config))
    except (ValueError, StrictDataclassError) as error:
        return [Obstacle("", None, _reason(error))]
    found = [obstacle for obstacle in _changed(config, back) if _matters(obstacle, config, back, head.ours)]
    if not config.is_encoder_decoder and is_causal(config, our_class) != is_causal(back, head.ours):
        found.insert(0, Obstacle("is_causal", is_causal(config, our_class), is_causal(back, head.ours)))
    return found + _unmet_needs(config, head)


def import_obstacles(config: PreTrainedConfig, architecture: Architecture, head: Head) -> list[Obstacle]:
    """List what keeps a native model from becoming one of ours."""
    found = []
    if getattr(config, "quantization_config", None) is not None:
        found.append(Obstacle("quantization_config", "given", None))
    try:
        back = architecture.to_native_config(architecture.to_our_config(config))
    except (ValueError, StrictDataclassError) as error:
        fixed = architecture.native_fixed.items()
        found += [
            Obstacle(name, getattr(config, name), value) for name, value in fixed if getattr(config, name) != value
        ]
        return [*found, Obstacle("", None, _reason(error))]
    unread = architecture.ignored | architecture.training
    found += [obstacle for obstacle in _changed(config, back) if obstacle.name not in unread]
    return found + _unmet_needs(config, head)


def only_training(config: PreTrainedConfig, back: PreTrainedConfig, training: Iterable[str]) -> list[str]:
    """Say which of the fields that only training reads a conversion changes."""
    return [
        f"{obstacle.name} ({_short(obstacle.value)}, from now on {_short(obstacle.nearest)}), which only training reads"
        for obstacle in _changed(config, back)
        if obstacle.name in training or obstacle.name.rpartition(".")[2] in training
    ]


def refuse(obstacles: list[Obstacle], *, name: str, target: str) -> None:
    """Raise where something stands in the way.

    Raises:
        ValueError: In one line, naming each field, its value and the nearest that fits.
    """
    if obstacles:
        raise ValueError(
            f"model ({name}) must be expressible as {target}, and is not: {'; '.join(map(str, obstacles))}."
        )


def _changed(config: PreTrainedConfig, back: PreTrainedConfig) -> list[Obstacle]:
    values = ((name, get_field(config, name), get_field(back, name)) for name in field_names(config))
    return [Obstacle(name, value, nearest) for name, value, nearest in values if value != nearest]


def _matters(obstacle: Obstacle, config: PreTrainedConfig, back: PreTrainedConfig, our_class: str) -> bool:
    """Say whether a field that changes would change what a class computes; its direction is looked at elsewhere."""
    stack, _, name = obstacle.name.rpartition(".")
    if name in _UNREAD.get(stack, ()):
        return False
    if name in TRAINING_FIELDS or name == "is_causal" or our_class not in _READ_BY.get(name, (our_class,)):
        return False
    own, other = (get_field(each, stack) if stack else each for each in (config, back))
    if name == "classifier_pooling":
        return pooling_of(own) != pooling_of(other)
    if name == "norm_bias":
        return other.norm != "rms_norm"
    if name == "rope_parameters":
        return own.position_embedding == "rope"
    if name == "partial_rotary_factor":
        return obstacle.value != 1.0
    return True


def is_causal(config: Any, our_class: str) -> bool:
    """Say whether a class is causal with a configuration."""
    return _CAUSAL.get(our_class, bool(config.is_causal))


def _unmet_needs(config: PreTrainedConfig, head: Head) -> list[Obstacle]:
    fields = ((name, getattr(config, name), needed) for name, needed in head.needs.items())
    return [Obstacle(name, value, needed) for name, value, needed in fields if value != needed]


def _reason(error: Exception) -> str:
    """Give what a configuration that refuses itself says, without the wrapping of the library that checks types."""
    return one_line(error.__cause__ or error).rstrip(".")


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 1 and len(set(map(str, value))) == 1:
        return f"{value[0]} in every layer"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
