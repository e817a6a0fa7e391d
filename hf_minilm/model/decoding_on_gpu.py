"""Writing token by token on a GPU: a step of the model, recorded once and played back for every token.

A step of generation launches a hundred small kernels one after the other, each of which a GPU ends sooner than a
processor launches the next. A CUDA graph is the list of them, launched as one. What it reads and writes must stay in
place, so for the tokens after the first one there are

    memory      for keys and values that has room for the tokens to come, of which a mask hides what is not written yet
    a place     where the next token's keys and values go, as a number on the GPU that the graph itself moves on
    a recording of the model's own `forward`, made anew when the memory is full and is made twice as large

The loop around it is that of `decoding`, whose conditions are the ones here.

Shapes: B batch, K key and value heads, D head size, V vocabulary, C tokens that the memory has room for.
"""

import threading
from typing import Any, cast

import torch
from torch import nn
from transformers.utils.import_utils import is_torch_greater_or_equal

from .attention import Attention
from .layers import Layer

SPARE_TOKENS = 256
"""For how many more tokens there is room at first."""

_STREAMS = threading.local()
"""By GPU, the stream on which a thread records: libraries keep their memory for each stream that they have seen."""


def can_record(device: torch.device) -> bool:
    """Tell whether a step may be recorded here: on a GPU, and before torch 2.13 on the main thread alone.

    There a recording holds the generator of random numbers that other threads draw from.
    """
    is_alone = threading.current_thread() is threading.main_thread()
    return device.type == "cuda" and (is_alone or is_torch_greater_or_equal("2.13"))


def _stream() -> torch.cuda.Stream:
    """Give this thread's stream for recordings on the current GPU."""
    streams, device = _STREAMS.__dict__.setdefault("by_device", {}), torch.cuda.current_device()
    if device not in streams:
        streams[device] = torch.cuda.Stream()
    return cast(torch.cuda.Stream, streams[device])


def first_room(end: int, longest: int | None) -> int:
    """Say for how many tokens to make room at first, those up to an end included; longest is what a text may have."""
    return end + min(SPARE_TOKENS, SPARE_TOKENS if longest is None else max(longest - end, 1))


class Room:
    """The keys and values of all layers, in the form of a cache whose tensors stay where they are.

    Args:
        cache: What the prompt has left, a `DynamicCache`.
        layers: The model's.
        place: Tokens of the prompt, [1]; moved on by who writes.
        size: C.
    """

    def __init__(self, cache: Any, layers: list[Layer], *, place: torch.Tensor, size: int) -> None:
        self.place, self.size = place, size
        end, self.held = int(place), {}
        for layer in layers:
            kept = cache.layers[layer.attention.layer_idx]
            # A sliding layer's cache has kept the last tokens alone: what lies before is never looked at.
            self.held[layer.attention.layer_idx] = tuple(
                _widened(tensor, end=end, size=size) for tensor in (kept.keys, kept.values)
            )

    def grow(self, end: int) -> None:
        """Make room for twice as many tokens, of which those up to an end are kept."""
        self.size *= 2
        for index, pair in self.held.items():
            self.held[index] = tuple(_widened(tensor[:, :, :end], end=end, size=self.size) for tensor in pair)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the keys and values [B, K, 1, D] of the next token, and give all there is room for, [B, K, C, D]."""
        for room, new in zip(self.held[layer_idx], (keys, values), strict=True):
            room.index_copy_(2, self.place, new)
        return cast(tuple[torch.Tensor, torch.Tensor], self.held[layer_idx])

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:  # noqa: ARG002
        """Say how many keys there are, and which is the first."""
        return self.size, 0

    def get_seq_length(self, layer_idx: int = 0) -> torch.Tensor:  # noqa: ARG002
        """Say how many tokens came before, [1]."""
        return self.place


def _widened(tensor: torch.Tensor, *, end: int, size: int) -> torch.Tensor:
    """Put the last of the tokens up to an end [B, K, up to end, D] into room for more, zeros around them."""
    room = tensor.new_zeros(*tensor.shape[:2], size, tensor.shape[3])
    room[:, :, end - tensor.shape[2] : end] = tensor
    return room


class RecordedStep:
    """A model made ready to take one token a row after another, from the cache of what came before.

    Where it cannot be recorded, every step is computed anew.

    Args:
        model: The causal model.
        model_kwargs: As `generate` keeps them after the prompt: the cache, positions and mask up to the next token.
        longest: Most tokens of a text, where that is known.
    """

    def __init__(self, model: Any, model_kwargs: dict[str, Any], *, longest: int | None) -> None:
        cache, position_ids = model_kwargs["past_key_values"], model_kwargs["position_ids"][:, -1:]
        layers, device = [cast(Layer, layer) for layer in model.model.layers], position_ids.device
        self.model, self.end = model, int(cache.get_seq_length())
        self.place = torch.tensor([self.end], device=device)
        self.room = Room(cache, layers, place=self.place, size=first_room(self.end, longest))
        self.attentions = {layer.layer_type: layer.attention for layer in layers}
        self.position_ids = position_ids.clone()
        self.told_positions = position_ids.cpu()  # where a scheme can look whether it knows them
        self.tokens = position_ids.new_zeros(len(cache.layers[0].keys), 1)
        types = model_kwargs.get("token_type_ids")
        self.inputs = {} if types is None else {"token_type_ids": types[:, -1:].clone()}
        mask = model_kwargs.get("attention_mask")
        self.padding = None if mask is None or bool(mask.all()) else mask == 0  # [B, up to the next token]
        self.is_recorded = can_record(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits: torch.Tensor | None = None

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Take the next token [B] of every row, and score the ones after it, [B, V]; until the next call."""
        self.model.model.positions.refuse_unknown_positions(self.told_positions)
        self.told_positions = self.told_positions + 1
        self.tokens.copy_(tokens[:, None])
        if self.end == self.room.size:
            self.room.grow(self.end)
            self.graph = None
        self.end += 1
        if not self.is_recorded:
            self._step()
        else:
            if self.graph is None:
                self._record()
            cast(torch.cuda.CUDAGraph, self.graph).replay()
        return cast(torch.Tensor, self.logits)

    def _record(self) -> None:
        """Record a step. It is computed once before, as libraries prepare themselves then, and moves nothing on."""
        # A stream belongs to the GPU that is the current one, and the model may lie on another.
        with torch.cuda.device(self.place.device):
            stream = _stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._scores(self._masks())
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the GPU meanwhile; see `can_record`.
            with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
                self._step()

    def _step(self) -> None:
        self.logits = self._scores(self._masks())
        self.place.add_(1)
        self.position_ids.add_(1)

    def _scores(self, masks: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs = self.model(
            self.tokens,
            attention_mask=masks,
            position_ids=self.position_ids,
            past_key_values=self.room,
            logits_to_keep=1,
            return_dict=True,
            **self.inputs,
        )
        return cast(torch.Tensor, outputs.logits[:, -1])

    def _masks(self) -> dict[str, torch.Tensor]:
        """Say by layer type which places the next token looks at, boolean [B, 1, 1, C]."""
        places = torch.arange(self.room.size, device=self.place.device)
        written = (places <= self.place)[None, None, None]
        if self.padding is not None:
            padding = nn.functional.pad(self.padding, (0, self.room.size - self.padding.shape[1]))
            written = written & ~padding[:, None, None]
        written = written.expand(len(self.tokens), -1, -1, -1)
        return {kind: written & _in_window(places, self.place, at) for kind, at in self.attentions.items()}


def _in_window(places: torch.Tensor, place: torch.Tensor, attention: Attention) -> torch.Tensor:
    window = attention.sliding_window
    return torch.ones_like(places, dtype=torch.bool) if window is None else places > place - window
