"""Attention maps of a model that keeps its fast attention: weights for the layers and heads that one asks for.

A fast kernel never holds the weights alpha of `model/attention.py`, so it cannot return them; and with
`attn_implementation="eager"` every layer holds those of all its heads. Here the model runs as it is configured. Beside
the attention call of each chosen layer, the weights of the chosen heads are computed from what that call was handed:
its queries and keys, already turned and cached, its mask and its position bias.

Shapes: B batch, H chosen heads, T query positions, S key positions, D head size.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..model.attention import masked_softmax
from ..model.variable_length import VARIABLE_LENGTH
from .attention_calls import AttentionCall, mask_of

Kernel = Callable[..., Any]
Resolve = Callable[[str, Kernel], Kernel]

UNKNOWN_TO_THE_FORMULA = ("softcap", "s_aux", "cache")
"""Options of other models' kernels that change the weights: capped scores, sinks, and keys fetched by the kernel."""

_ONE_AT_A_TIME = threading.RLock()


def attention_maps(
    model: nn.Module,
    inputs: Mapping[str, Any],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    named: str = "*",
) -> tuple[torch.Tensor, ...]:
    """Run a model once and give the attention weights of some layers and heads, as eager attention returns them.

    The outputs of the run are those of `model(**inputs)` without the maps, bit for bit. The maps are part of the
    gradient's graph where gradients are enabled, as they are outside `torch.no_grad()` (but with gradient
    checkpointing torch refuses to go back through them: layers run again, and maps are not made again). In training,
    weights are given before dropout. A compiled model is compiled once more. Calls in several threads wait for each
    other.

    Args:
        model: Any model whose attention modules have a class name that ends in `Attention`, an attribute `layer_idx`,
            and call their kernel through transformers' attention interface: all of this package, also when their code
            was loaded from a saved folder, with any `attn_implementation`.
        inputs: The model's keyword arguments, on its device; what a tokenizer returns.
        layers: Which attention modules, counted from 0 in the order in which the model holds them, negative from the
            last; None is all.
        heads: Which query heads of each, likewise; None is all.
        named: Count only the modules whose dotted name fits this pattern of `fnmatch`, such as `*cross_attention`.

    Returns:
        The maps in the order of `layers`, each [B, H, T, S] in float32 with its heads in the order of `heads`. Row t
        sums to 1, or is zero where query t may look at nothing.

    Raises:
        ValueError: If there is no such layer, head or module, or the kernel does not tell what the weights depend on.
        RuntimeError: If the run left a chosen layer out.
    """
    modules = list(attention_modules(model, named=named).values())
    chosen = [modules[index] for index in _from_the_start("layers", layers, number=len(modules))]
    heads_of = {module: _from_the_start("heads", heads, number=module.config.num_attention_heads) for module in chosen}
    maps: dict[nn.Module, torch.Tensor] = {}

    def watch(call: AttentionCall) -> None:
        if call.module in heads_of:
            maps[call.module] = weights_of(call, heads_of[call.module])

    if getattr(getattr(model, "config", None), "_attn_implementation", None) == VARIABLE_LENGTH:
        inputs = {**inputs, "output_hidden_states": True}  # then padding is not left out, and maps are of rows
    with watched_attention(watch):
        model(**inputs)
    for module in chosen:
        if module not in maps:
            raise RuntimeError(
                f"layers ({modules.index(module)}) must be among those that the model runs; choose others, or give "
                "inputs that reach this one."
            )
    return tuple(maps[module] for module in chosen)


def attention_modules(model: nn.Module, *, named: str = "*") -> dict[str, Any]:
    """Give a model's attention modules by their dotted names, those that fit the pattern, in the order of the model.

    Raises:
        ValueError: If there are none.
    """
    # By name, not by class: a model loaded from a folder brings its own class, and FSDP renames it.
    everyone = {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Attention") and hasattr(module, "layer_idx")
    }
    fitting = {name: module for name, module in everyone.items() if fnmatchcase(name, named)}
    if not fitting:
        holds = f"holds {', '.join(everyone)}" if everyone else "holds none"
        raise ValueError(
            f"named ({named}) must fit an attention module, and {type(model).__name__} {holds}; give another."
        )
    return fitting


@contextmanager
def watched_attention(watch: Callable[[AttentionCall], None]) -> Iterator[None]:
    """Show `watch` every attention call of the process, just before its kernel runs, until the block ends.

    An attention module looks its kernel up by name at each call, and what it finds is wrapped here. The name and the
    configuration stay as they are, so masks are made, and biases handed over, as they are without the watching.
    """

    def resolve_watched(implementation: str, default: Kernel) -> Kernel:
        kernel = resolve(implementation, default)

        def watched(
            module: nn.Module,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            attention_mask: Any,
            **options: Any,
        ) -> Any:
            watch(AttentionCall(module, implementation, query, key, attention_mask, options))
            return kernel(module, query, key, value, attention_mask, **options)

        return watched

    # Shadowed on the one object that every model asks, because `eager` has no entry in its table to replace.
    shadows = vars(ALL_ATTENTION_FUNCTIONS)
    with _ONE_AT_A_TIME:
        resolve: Resolve = ALL_ATTENTION_FUNCTIONS.get_interface
        before = shadows.get("get_interface")
        shadows["get_interface"] = resolve_watched
        try:
            yield
        finally:
            if before is None:
                del shadows["get_interface"]
            else:
                shadows["get_interface"] = before


def weights_of(call: AttentionCall, heads: Sequence[int]) -> torch.Tensor:
    """Compute the weights [B, H, T, S] of some heads by the written-out formula, in float32.

    Args:
        call: What the kernel is handed.
        heads: Query heads, from 0.

    Raises:
        ValueError: If the kernel is told something that the formula does not know, or hides its mask.
    """
    for name in UNKNOWN_TO_THE_FORMULA:
        option = call.options.get(name)
        if option is not None:
            raise ValueError(
                f"{name} ({type(option).__name__}) must be None, as the written-out formula has none; ask for "
                'output_attentions=True after model.set_attn_implementation("eager").'
            )
    bias, mask = call.options.get("position_bias"), mask_of(call)
    scaling = call.query.shape[-1] ** -0.5 if call.options.get("scaling") is None else call.options["scaling"]
    group_size = call.query.shape[1] // call.key.shape[1]
    # Autocast would round the scores to 16 bits, which a fast kernel does not.
    with torch.autocast(call.query.device.type, enabled=False):
        query = call.query[:, heads].float()  # [B, H, T, D]
        key = call.key[:, [head // group_size for head in heads]].float()  # [B, H, S, D]
        scores = query @ key.transpose(-1, -2) * scaling
        if bias is not None:
            scores = scores + _of_heads(bias, heads)
        return masked_softmax(scores, None if mask is None else _of_heads(mask, heads))


def _of_heads(tensor: torch.Tensor, heads: Sequence[int]) -> torch.Tensor:
    return tensor if tensor.shape[1] == 1 else tensor[:, heads]


def _from_the_start(what: str, indices: Sequence[int] | None, *, number: int) -> list[int]:
    """Count indices from the start, where negative ones count from the end."""
    if indices is None:
        return list(range(number))
    if len(indices) == 0:
        raise ValueError(f"{what} ([]) must name at least one; give None for all.")
    for index in indices:
        if not -number <= index < number:
            raise ValueError(
                f"{what} ({index}) must be from {-number} to {number - 1}, as there are {number}; choose one of them."
            )
    return [index % number for index in indices]
