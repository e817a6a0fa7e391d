"""Native models into ours and back: refused before any work if it cannot be exact, and proved at the end."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

import hf_minilm

from .architecture import Architecture, Head
from .obstacles import TRAINING_FIELDS, export_obstacles, import_obstacles, only_training, refuse
from .opening import open_config, open_native, open_tokenizer, open_weights
from .proof import Proof, in_float32, prove, weights_and_buffers
from .registry import ARCHITECTURES, architecture_named
from .sentence_modules import read_beside, refuse_foreign_activation
from .tensors import built_empty, carry_over, make_own, own_names, refuse_tensors, untie

OUR_MODEL_TYPES = ("hf_minilm", "hf_minilm_seq2seq")


@dataclass(frozen=True)
class Converted:
    """A converted model that was proved to compute what it did before.

    Attributes:
        model: The model, in evaluation mode, with weights of its own in the dtype that they had.
        tokenizer: The tokenizer that lay beside it; None where there was none.
        source: Class and architecture that it was.
        target: Class and architecture that it is.
        name: Folder or Hub name that it was read from.
        dropped: What has no counterpart and is gone, in words.
        proof: How far apart the two models were.
        head: The pair of classes.
        beside: What sentence-transformers keeps beside it, by file.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    source: str
    target: str
    name: str
    dropped: list[str]
    proof: Proof
    head: Head
    beside: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give what `conversion.json` says."""
        return {
            "from": self.source,
            "to": self.target,
            # Of a folder the end of its path is enough: the file goes wherever the model goes.
            "name": Path(self.name).name if Path(self.name).is_dir() else self.name,
            "dtype_of_weights": str(self.model.dtype).removeprefix("torch."),
            "parameters": self.model.num_parameters(),
            "dropped": self.dropped,
            "kept_of_sentence_transformers": list(self.beside),
            "proof": self.proof.to_json(),
            "versions": {
                "hf_minilm": hf_minilm.__version__,
                "transformers": transformers.__version__,
                "torch": torch.__version__,
            },
        }

    def to_text(self) -> Iterator[str]:
        """Say it in lines for a person."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        yield f"{self.source} -> {self.target}, {self.model.num_parameters():,} parameters, weights in {dtype}"
        yield from (f"dropped: {what}" for what in self.dropped)
        if self.beside:
            yield f"kept of sentence-transformers: {', '.join(self.beside)}"
        yield from self.proof.to_text()


def from_native(model: PreTrainedModel | str | Path, *, revision: str | None = None) -> Converted:
    """Make a native model one of ours.

    Args:
        model: A folder, a Hub name, or a native model, which is left as it is.
        revision: Branch, tag or commit of a Hub name.

    Raises:
        ValueError: If ours cannot express it, naming each field in the way, if its file lacks a tensor or has one too
            many, or if the two do not compute the same.
        OSError: If there is no such model.
    """
    name, config, native_class = _described(model, revision=revision)
    if config.model_type in OUR_MODEL_TYPES:
        raise ValueError(f"model ({name}) must be a native one, and is one of ours; export turns it into a native one.")
    if config.model_type not in ARCHITECTURES:
        raise ValueError(f"model_type ({config.model_type}) of {name} must be one of {', '.join(ARCHITECTURES)}.")
    architecture = ARCHITECTURES[config.model_type]
    named = architecture.head_of_native(native_class)
    head = named or architecture.heads[-1]
    refuse(import_obstacles(config, architecture, head), name=name, target="hf_minilm")
    beside, unknown = _beside(model, config, revision=revision)
    our_config = architecture.to_our_config(config)
    dropped = only_training(config, architecture.to_native_config(our_config), architecture.training)
    tokenizer = None
    if isinstance(model, PreTrainedModel):
        native, extra = _as_class(model, head.native_class, prefix=head.prefixes[1], **head.arguments)
    else:
        head, native, extra = open_native(name, architecture, head, revision=revision, is_named=named is not None)
        tokenizer = open_tokenizer(name, revision=revision)
    ours = built_empty(head.our_class, our_config)
    proof = _fill_and_prove(native, ours, tokenizer, architecture=architecture, head=head, to_ours=True)
    del native
    make_own(ours, copies=isinstance(model, PreTrainedModel))
    return Converted(
        model=ours,
        tokenizer=tokenizer,
        source=f"{architecture.name} ({head.native})",
        target=f"hf_minilm ({head.ours})",
        name=name,
        dropped=[*_dropped_tensors(extra, head.ours), *dropped, *unknown],
        proof=proof,
        head=head,
        beside=beside,
    )


def to_native(model: PreTrainedModel | str | Path, architecture: str, *, revision: str | None = None) -> Converted:
    """Make one of our models a native one.

    Args:
        model: A folder, a Hub name, or a model of ours, which is left as it is.
        architecture: A name in the registry, such as bert.
        revision: Branch, tag or commit of a Hub name.

    Raises:
        ValueError: If the architecture cannot express it, naming each field in the way, or if the two do not compute
            the same.
        OSError: If there is no such model.
    """
    wanted = architecture_named(architecture)
    name, config, our_class = _described(model, revision=revision)
    if config.model_type not in OUR_MODEL_TYPES:
        raise ValueError(f"model ({name}, a {config.model_type}) must be one of ours; import makes it one.")
    refuse(export_obstacles(config, wanted, our_class), name=name, target=wanted.name)
    beside, unknown = _beside(model, config, revision=revision)
    head = wanted.head_of(our_class)
    native_config = wanted.to_native_config(config)
    dropped = only_training(config, wanted.to_our_config(native_config), TRAINING_FIELDS)
    tokenizer = None
    if isinstance(model, PreTrainedModel):
        ours, extra = _as_class(model, head.our_class, prefix=head.prefixes[0])
    else:
        ours, missing, extra = open_weights(name, head.our_class, revision=revision)
        is_whole, body = head.ours == our_class, f"{head.our_class.base_model_prefix}."
        refuse_tensors(missing=missing, extra=[key for key in extra if is_whole or key.startswith(body)])
        tokenizer = open_tokenizer(name, revision=revision)
    native = built_empty(head.native_class, native_config, **head.arguments)
    wanted.prepare(native, config)
    proof = _fill_and_prove(native, ours, tokenizer, architecture=wanted, head=head, to_ours=False)
    del ours
    make_own(native, copies=isinstance(model, PreTrainedModel))
    return Converted(
        model=native,
        tokenizer=tokenizer,
        source=f"hf_minilm ({head.ours})",
        target=f"{wanted.name} ({head.native})",
        name=name,
        dropped=[*_dropped_tensors(extra, head.native), *dropped, *unknown],
        proof=proof,
        head=head,
        beside=beside,
    )


def _described(model: PreTrainedModel | str | Path, *, revision: str | None) -> tuple[str, PreTrainedConfig, str]:
    """Give a model's name, its configuration, and the name of its class, "" where that is not known."""
    if isinstance(model, PreTrainedModel):
        return type(model).__name__, model.config, type(model).__name__
    config = open_config(str(model), revision=revision)
    return str(model), config, (config.architectures or [""])[0]


def _beside(
    model: PreTrainedModel | str | Path, config: PreTrainedConfig, *, revision: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Read what sentence-transformers keeps beside a model, where it is not in memory, and look at its activation."""
    is_in_memory = isinstance(model, PreTrainedModel)
    refuse_foreign_activation(config, name=type(model).__name__ if is_in_memory else str(model))
    return ({}, []) if is_in_memory else read_beside(str(model), revision=revision)


def _as_class(
    model: PreTrainedModel, model_class: type[PreTrainedModel], *, prefix: str, **arguments: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Give a model as a class that does a part of its work, and the names of the tensors that are then left over.

    Args:
        model: Any model; its weights are shared.
        model_class: Its class, or another one of its family.
        prefix: What stands before the body's names in that class.
        **arguments: What the class is built with.
    """
    # Built anew even if it is that class: casting a whole model has rounded the angles of its rotary positions too.
    part = built_empty(model_class, copy.deepcopy(model.config), **arguments)
    own = "" if model.base_model is model else f"{model.base_model_prefix}."
    held, tied = model.state_dict(), model.all_tied_weights_keys
    tensors = {
        f"{prefix}{name.removeprefix(own)}" if name.startswith(own) else name: tensor
        for name, tensor in held.items()
        if name not in tied or tensor.data_ptr() != held[tied[name]].data_ptr()
    }
    for name in part.all_tied_weights_keys.keys() & tensors.keys():
        untie(part, name)
    wanted = own_names(part)
    refuse_tensors(missing=sorted(wanted - tensors.keys()))
    part.load_state_dict({name: tensors[name] for name in wanted}, strict=False, assign=True)
    part.tie_weights()
    return part, sorted(tensors.keys() - wanted)


def _fill_and_prove(
    native: PreTrainedModel,
    ours: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    architecture: Architecture,
    head: Head,
    to_ours: bool,
) -> Proof:
    """Fill the empty one of two models from the other, prove it in float32, and leave both in the dtype it was in."""
    source, target = (native, ours) if to_ours else (ours, native)
    pairs = architecture.pairs(ours, native, head=head)
    dtype = source.dtype
    with in_float32(source):
        if to_ours:
            architecture.unround(native, dtype)
        carry_over(source, target, pairs, to_ours=to_ours, config=ours.config)
        proof = prove(native, ours, tokenizer, architecture=architecture, head=head)
    if any(tensor.dtype != torch.float32 for tensor in weights_and_buffers(source)):
        carry_over(source, target, pairs, to_ours=to_ours, config=ours.config)
    target.config.dtype = dtype
    if source.can_generate() and target.can_generate():
        cast(Any, target).generation_config = copy.deepcopy(source.generation_config)
    return proof


def _dropped_tensors(names: list[str], target: str) -> list[str]:
    return [f"{', '.join(names)}, for which {target} has no place"] if names else []
