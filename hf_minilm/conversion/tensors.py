"""Tensors under two names: which of ours is which of a native model's, and what is done to it on the way.

A table of `Names` is read in both directions. Most tensors only change their name, and are then shared, not copied.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

Tensors = Sequence[torch.Tensor]


class Operation:
    """What is done to tensors on the way; as it stands, nothing: one tensor goes over as it is."""

    def to_ours(self, native: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Make our tensors from the native ones, in the order of their names; `config` is ours."""
        return native

    def to_native(self, ours: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Make the native tensors from ours, in the order of their names."""
        return ours


class Transposed(Operation):
    """A matrix that the native model multiplies from the other side (GPT-2's `Conv1D`); biases go as they are."""

    def to_ours(self, native: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Transpose what is a matrix."""
        return [tensor.T if tensor.dim() == 2 else tensor for tensor in native]

    def to_native(self, ours: Tensors, config: Any) -> Tensors:
        """Transpose it back."""
        return self.to_ours(ours, config)


@dataclass(frozen=True)
class Fused(Operation):
    """Several of our tensors, equally large, that the native model keeps as one: query, key and value, or gate and up.

    Attributes:
        parts: How many.
        transposed: Whether the one is also transposed.
    """

    parts: int
    transposed: bool = False

    def to_ours(self, native: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Split the one by its rows."""
        (fused,) = native
        return self._turned(fused).chunk(self.parts)

    def to_native(self, ours: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Lay them one below the other."""
        return [self._turned(torch.cat(list(ours)))]

    def _turned(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.T if self.transposed and tensor.dim() == 2 else tensor


@dataclass(frozen=True)
class RowsFrom(Operation):
    """A table whose first rows the native model never reads; they are left out, and zeros on the way back.

    Attributes:
        first: Number of the first row that is read, from our configuration.
    """

    first: Callable[[Any], int]

    def to_ours(self, native: Tensors, config: Any) -> Tensors:
        """Leave out the first rows."""
        return [native[0][self.first(config) :]]

    def to_native(self, ours: Tensors, config: Any) -> Tensors:
        """Put zeros before."""
        (table,) = ours
        return [torch.cat((table.new_zeros(self.first(config), table.shape[1]), table))]


class Copies(Operation):
    """One tensor of ours that the native model keeps under two names, of which it reads the first."""

    def to_ours(self, native: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Take the one that is read."""
        return native[:1]

    def to_native(self, ours: Tensors, config: Any) -> Tensors:  # noqa: ARG002
        """Give it under both names, or the one that is not tied to the other."""
        return [ours[0], ours[0]]


AS_IT_IS = Operation()


@dataclass(frozen=True)
class Names:
    """One line of a table: modules or tensors of ours, and those of the native model that are the same.

    A module's line stands for its weight and its bias. `{}` counts the layers by `num_hidden_layers`; `{encoder}` and
    `{decoder}` those of a stack.

    Attributes:
        ours: One name, or several that are one in the native model.
        native: One name, or several.
        operation: What is done on the way.
    """

    ours: str | tuple[str, ...]
    native: str | tuple[str, ...]
    operation: Operation = AS_IT_IS


class Pair(NamedTuple):
    """Names of whole tensors, layers counted out."""

    ours: tuple[str, ...]
    native: tuple[str, ...]
    operation: Operation


def paired(
    table: Iterable[Names], ours: PreTrainedModel, native: PreTrainedModel, *, prefixes: tuple[str, str]
) -> list[Pair]:
    """Write a table out for two models: layer by layer, weights and biases, without names that are tied to others.

    Args:
        table: Its lines.
        ours: Our model.
        native: The native one.
        prefixes: What stands before our names, and before the native ones.
    """
    own, theirs = own_names(ours), own_names(native)
    pairs = []
    for line in table:
        for layer in _layers(line, ours.config):
            for ending in (".weight", ".bias", ""):
                our_names = [f"{prefixes[0]}{name.replace(*layer)}{ending}" for name in several(line.ours)]
                native_names = [f"{prefixes[1]}{name.replace(*layer)}{ending}" for name in several(line.native)]
                if any(name in own for name in our_names) or any(name in theirs for name in native_names):
                    there = tuple(name for name in native_names if name in theirs) or tuple(native_names)
                    pairs.append(Pair(tuple(our_names), there, line.operation))
    return pairs


def several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """Give the names of a line's side, also where it is a single one."""
    return (names,) if isinstance(names, str) else names


def _layers(line: Names, config: PreTrainedConfig) -> Iterator[tuple[str, str]]:
    """Give what stands for a layer's number in a line's names, with each number; once where nothing does."""
    first = several(line.ours)[0]
    for counter, counted in (("{}", ""), ("{encoder}", "encoder."), ("{decoder}", "decoder.")):
        if counter in first:
            yield from ((counter, str(index)) for index in range(get_field(config, f"{counted}num_hidden_layers")))
            return
    yield "{}", ""


def get_field(config: PreTrainedConfig, name: str) -> Any:
    """Read a field, `encoder.hidden_size` being one of the encoder's."""
    return reduce(getattr, name.split("."), config)


def own_names(model: PreTrainedModel) -> set[str]:
    """Name the tensors that a model keeps, without those that are tied to another."""
    return set(model.state_dict()) - set(model.all_tied_weights_keys)


def untie(model: PreTrainedModel, name: str) -> None:
    """Let a tensor that a class ties to another one be its own, as it becomes by opening a file that has both."""
    keys = model._tied_weights_keys or {}
    model._tied_weights_keys = {target: source for target, source in keys.items() if target != name}
    del model.all_tied_weights_keys[name]


def carry_over(
    source: PreTrainedModel, target: PreTrainedModel, pairs: Sequence[Pair], *, to_ours: bool, config: PreTrainedConfig
) -> None:
    """Give a model the tensors of another; they share memory wherever only the name changes.

    Args:
        source: The model that has them.
        target: The one that gets them; what it held is lost.
        pairs: What is what.
        to_ours: Whether the target is ours.
        config: Our configuration.

    Raises:
        ValueError: If a tensor is missing, or has no counterpart, or another shape.
    """
    held = source.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    left = own_names(source)
    missing = []
    for pair in pairs:
        names, targets = (pair.native, pair.ours) if to_ours else (pair.ours, pair.native)
        if any(name not in held for name in names):
            missing += [name for name in names if name not in held]
            continue
        left -= set(names)
        given = [held[name] for name in names]
        made = pair.operation.to_ours(given, config) if to_ours else pair.operation.to_native(given, config)
        # Of two copies, the one that is tied to the other is not among the targets.
        tensors |= zip(targets, made, strict=not isinstance(pair.operation, Copies))
    refuse_tensors(missing=missing, extra=sorted(left))
    _give(target, tensors)


def refuse_tensors(*, missing: Sequence[str] = (), extra: Sequence[str] = ()) -> None:
    """Raise where tensors are missing, or have no counterpart.

    Raises:
        ValueError: Naming all of them.
    """
    problems = {"missing": missing, "without a counterpart": extra}
    said = "; ".join(f"{len(names)} {what}: {', '.join(names)}" for what, names in problems.items() if names)
    if said:
        raise ValueError(f"tensors must be those of the architecture, and are not ({said}); save the model again.")


def _give(target: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> None:
    empty = target.state_dict()
    wanted = {name: empty[name] for name in own_names(target)}
    refuse_tensors(missing=sorted(wanted.keys() - tensors.keys()), extra=sorted(tensors.keys() - wanted.keys()))
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{name} (of shape {list(tensor.shape)}) must have the shape {list(wanted[name].shape)} by the "
                "configuration; save the model again."
            )
    target.load_state_dict(tensors, strict=False, assign=True)
    target.tie_weights()


def built_empty(model_class: type[PreTrainedModel], config: PreTrainedConfig, **arguments: Any) -> PreTrainedModel:
    """Build a model whose weights are not set, as they are about to be given: no memory is touched for them."""
    with no_init_weights():
        return model_class(config, **arguments).eval()


def make_own(model: PreTrainedModel, *, copies: bool) -> None:
    """Let every weight be laid out row by row, and in no memory that another weight has too.

    Args:
        model: Any.
        copies: Whether all weights are copied, because another model goes on using them.
    """
    taken: set[int] = set()
    for parameter in (*model.parameters(), *model.buffers()):
        data = parameter.data
        if copies or not data.is_contiguous() or data.data_ptr() in taken:
            parameter.data = data.clone(memory_format=torch.contiguous_format)
        taken.add(parameter.data_ptr())
