"""What a native architecture is, said once and read in both directions: fields, heads and tensors under both names."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

import hf_minilm

from .tensors import Names, Pair, get_field, paired

CARRIED = ("pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "use_cache")
"""Fields of the same name and meaning in every configuration that has them."""

LABELS = ("id2label", "label2id", "problem_type")
"""Fields of every configuration that classifiers read."""

ACTIVATIONS = ("sentence_transformers", "sbert_ce_default_activation_function")
"""What sentence-transformers reads of a cross-encoder's configuration, which declares neither: the newer one first."""

WHOLE_MODELS = ("MiniLMModel", "MiniLMSeq2SeqModel")
"""Our classes without a head, whose tensors' names have no prefix."""

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """One of our classes and the native class that computes the same.

    Attributes:
        ours: Name of our class.
        native: Name of the native class, in transformers.
        names: The head's own tensors; the body's are the architecture's.
        prefix: What stands before the body's names in the native class; None: its `base_model_prefix` and a dot.
        arguments: What the native class is built and opened with.
        dropped: Beginnings of native names that may be in a file and that our class has nothing for.
        fixed: Fields of ours that the native class leaves no choice in, besides the architecture's.
        needs: Fields of both configurations that the architecture has, and this class only with one value.
        reads_padding: Whether the native class takes the first column for the first token, padded or not.
    """

    ours: str
    native: str
    names: tuple[Names, ...] = ()
    prefix: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    reads_padding: bool = False

    @property
    def our_class(self) -> type[PreTrainedModel]:
        """Give our class."""
        return getattr(hf_minilm, self.ours)

    @property
    def native_class(self) -> type[PreTrainedModel]:
        """Give the native class."""
        return getattr(transformers, self.native)

    @property
    def prefixes(self) -> tuple[str, str]:
        """Give what stands before the body's names, in ours and in the native class."""
        ours = "" if self.ours in WHOLE_MODELS else f"{self.our_class.base_model_prefix}."
        return ours, f"{self.native_class.base_model_prefix}." if self.prefix is None else self.prefix


@dataclass(frozen=True)
class Architecture:
    """A native architecture.

    Most of a configuration is told by three tables. What a table cannot say, a subclass says, by overriding
    `our_fields` and `native_fields` together. Nothing else is needed to know what stands in the way of a conversion:
    that is wherever a configuration which goes there and back is not what it was.

    Attributes:
        name: Its `model_type`, and what `--to` calls it.
        config: Name of its configuration's class.
        same: Our fields, and the native ones that mean the same; names like `encoder.hidden_size` are a stack's. A
            field that stands under several names on the other side has a line for each, of which the first is read.
        fixed: Our fields that are not a choice in the native architecture, and what it computes.
        native_fixed: Native fields that are not a choice in ours, and what we compute.
        ignored: Native fields that no class here reads.
        training: Native fields that change training and not what a trained model computes.
        body: The body's tensors.
        heads: Pairs of classes, the body without a head last.
        derived: Patterns of tensors that older files hold and the configuration gives.
        divides_width: Whether the heads share the width out evenly, whatever their size.
        notes: What one who uses a converted model has to know.
        our_config: Name of our configuration's class.
    """

    name: str
    config: str
    same: tuple[tuple[str, str], ...]
    fixed: Mapping[str, Any]
    native_fixed: Mapping[str, Any]
    body: tuple[Names, ...]
    heads: tuple[Head, ...]
    ignored: frozenset[str] = frozenset()
    training: frozenset[str] = frozenset()
    derived: tuple[str, ...] = ()
    divides_width: bool = True
    notes: tuple[str, ...] = ()
    our_config: str = "MiniLMConfig"

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        """Give the native configuration's class."""
        return getattr(transformers, self.config)

    @property
    def our_config_class(self) -> type[PreTrainedConfig]:
        """Give our configuration's class."""
        return getattr(hf_minilm, self.our_config)

    def our_fields(self, native: PreTrainedConfig) -> dict[str, Any]:
        """Say a native configuration in our fields."""
        fields = {name: value for head in self.heads for name, value in head.fixed.items()} | dict(self.fixed)
        for name, native_name in reversed(self._same()):
            fields[name] = get_field(native, native_name)
        return fields

    def native_fields(self, ours: PreTrainedConfig) -> dict[str, Any]:
        """Say a configuration of ours in native fields."""
        fields = dict(self.native_fixed)
        for name, native_name in reversed(self._same()):
            fields[native_name] = get_field(ours, name)
            if self.divides_width and name.endswith("hidden_size"):
                heads = get_field(ours, name.replace("hidden_size", "num_attention_heads"))
                fields[native_name] = max(round(fields[native_name] / heads), 1) * heads
        return fields

    def _same(self) -> list[tuple[str, str]]:
        known = self.config_class.__dataclass_fields__.keys() & self.our_config_class.__dataclass_fields__.keys()
        return [*self.same, *((name, name) for name in CARRIED if name in known)]

    def to_our_config(self, native: PreTrainedConfig) -> PreTrainedConfig:
        """Build our configuration from a native one.

        Raises:
            ValueError: Where ours refuses it.
        """
        return self.our_config_class(**_nested(self.our_fields(native)), **labels_of(native))

    def to_native_config(self, ours: PreTrainedConfig) -> PreTrainedConfig:
        """Build a native configuration from ours."""
        return self.config_class(**_nested(self.native_fields(ours)), **labels_of(ours))

    def pairs(self, ours: PreTrainedModel, native: PreTrainedModel, *, head: Head) -> list[Pair]:
        """List what is what in two models of a head."""
        body = paired(self.body, ours, native, prefixes=head.prefixes)
        return body + paired(head.names, ours, native, prefixes=("", ""))

    def inputs_of_ours(self, inputs: Inputs, native: PreTrainedConfig) -> Inputs:  # noqa: ARG002
        """Say the native model's inputs to ours, where the two count something otherwise."""
        return inputs

    def outputs_of_ours(self, outputs: dict[str, Any], ours: PreTrainedConfig, head: Head) -> dict[str, Any]:  # noqa: ARG002
        """Say our model's outputs as the native ones, where hidden features have another order or scale."""
        return outputs

    def prepare(self, native: PreTrainedModel, ours: PreTrainedConfig) -> None:
        """Change what was just built, before it is given our weights, where its configuration cannot say it all."""

    def unround(self, native: PreTrainedModel, dtype: torch.dtype) -> None:
        """Give what the native model computes and keeps among its weights the digits that a dtype has taken from it."""

    def head_of(self, our_class: str) -> Head:
        """Give the head for one of our classes, or the nearest that is there: in the end, the body without a head."""
        for name in (our_class, *_NARROWER.get(our_class, ())):
            for head in self.heads:
                if head.ours == name:
                    return head
        return self.heads[-1]

    def head_of_native(self, native_class: str | None) -> Head | None:
        """Give the head for a native class, or None if ours has nothing for it."""
        return next((head for head in self.heads if head.native == native_class), None)


_NARROWER = {"MiniLMForPreTraining": ("MiniLMForMaskedLM",)}
"""Which of our classes does a part of another's work."""


def labels_of(config: PreTrainedConfig) -> dict[str, Any]:
    """Give what a configuration says of its labels, and of the activation that their scores go through elsewhere."""
    activations = {name: copy.deepcopy(getattr(config, name, None)) for name in ACTIVATIONS}
    given = {name: value for name, value in activations.items() if value is not None}
    return {name: getattr(config, name) for name in LABELS} | given


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Put the fields of stacks, whose names have a dot, into a dictionary a stack."""
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        *stack, last = name.split(".")
        place = nested.setdefault(stack[0], {}) if stack else nested
        place[last] = value
    return nested


def field_names(config: PreTrainedConfig) -> Iterator[str]:
    """Name the fields that a configuration's own class declares, those of stacks with a dot."""
    for name in vars(type(config))["__annotations__"]:
        value = getattr(config, name, None)
        if isinstance(value, PreTrainedConfig):
            yield from (f"{name}.{inner}" for inner in field_names(value))
        elif not name.startswith("_") and name in type(config).__dataclass_fields__:
            yield name
