"""A stopwatch for training steps, held from outside in the same way at our loop and at Trainer's."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from ..model.losses import number_of_labels
from .flops import MatrixWork, count_looks, training_flops
from .machine import memory_now, peak_memory, synchronise


@dataclass(frozen=True)
class TrainingFigures:
    """What was measured of a training, over the steps after the warm-up.

    Attributes:
        tokens_per_second: Tokens without padding, special tokens included.
        step_seconds: Median time of a step.
        waiting_share: Share of the time between the end of a step and the first forward pass of the next, in which the
            batch is made; on a GPU an upper bound, as queued work may still be running.
        padding_share: Share of the positions that hold padding.
        predicted_share: Share of the tokens that are predicted.
        tokens: Tokens of these steps.
        steps: Their number.
        flops_per_second: Operations a second that the task needs, see `flops`.
        peak_memory: Most bytes of the whole process (CPU) or of its tensors on the GPU.
        memory_before: Bytes held just before the first step.
    """

    tokens_per_second: float
    step_seconds: float
    waiting_share: float
    padding_share: float
    predicted_share: float
    tokens: int
    steps: int
    flops_per_second: float
    peak_memory: int
    memory_before: int

    def to_json(self) -> dict[str, float]:
        """Give the figures by name."""
        return asdict(self)


@dataclass
class _Counts:
    """Counts of one forward pass, those that depend on the data as tensors on the device."""

    tokens: torch.Tensor
    predicted: torch.Tensor
    sequences: torch.Tensor
    looks: torch.Tensor
    positions: int


class Stopwatch:
    """Notes when batches arrive and when steps end, and counts what is in the batches.

    The device is waited for when the measured steps begin and when they end, not between them, so that what overlaps
    may overlap.

    Args:
        device: Where the model computes.
        work: What it multiplies.
        warmup_steps: Steps that are not measured; 0 measures from the first batch on.
        steps: Steps that are.
        pad_token_id: What padding looks like in batches without an attention mask.
    """

    def __init__(
        self, device: torch.device, work: MatrixWork, *, warmup_steps: int, steps: int, pad_token_id: int
    ) -> None:
        self.device, self.work, self.pad_token_id = device, work, pad_token_id
        self.warmup_steps, self.steps = warmup_steps, steps
        self.memory_before = 0
        self._steps_done = 0
        self._stamps: list[float] = []
        self._waited: list[float] = []
        self._inputs: list[dict[str, Any]] = []
        self._in_step = False

    def batch_arrives(self, inputs: Mapping[str, Any]) -> None:
        """Note that a forward pass begins, and keep its inputs, to be counted later; a step may have several."""
        if not self._in_step and self._steps_done == 0:
            self.memory_before = memory_now(self.device)
            if self.warmup_steps == 0:
                self._stamp()
        if self._measures():
            if not self._in_step:
                self._waited.append(time.perf_counter() - self._stamps[-1])
            self._inputs.append(dict(inputs))
        self._in_step = True

    def step_ends(self) -> None:
        """Note that the weights have moved."""
        self._steps_done, self._in_step = self._steps_done + 1, False
        if self.warmup_steps <= self._steps_done <= self.warmup_steps + self.steps:
            self._stamp()

    def figures(self) -> TrainingFigures:
        """Sum up.

        Raises:
            RuntimeError: If there were fewer steps than were to be measured.
        """
        if len(self._stamps) != self.steps + 1:
            raise RuntimeError(f"measured steps ({len(self._stamps) - 1}) must be {self.steps}; the training was cut.")
        seconds = self._stamps[-1] - self._stamps[0]
        counts = [count_batch(inputs, self.work, pad_token_id=self.pad_token_id) for inputs in self._inputs]
        tokens = sum(int(each.tokens) for each in counts)
        predicted = sum(int(each.predicted) for each in counts)
        return TrainingFigures(
            tokens_per_second=tokens / seconds,
            step_seconds=median(after - before for before, after in zip(self._stamps, self._stamps[1:], strict=False)),
            waiting_share=sum(self._waited) / seconds,
            padding_share=1 - tokens / sum(each.positions for each in counts),
            predicted_share=predicted / tokens,
            tokens=tokens,
            steps=self.steps,
            flops_per_second=sum(_flops(self.work, each) for each in counts) / seconds,
            peak_memory=peak_memory(self.device, before=self.memory_before),
            memory_before=self.memory_before,
        )

    def _measures(self) -> bool:
        return self.warmup_steps <= self._steps_done < self.warmup_steps + self.steps

    def _stamp(self) -> None:
        if self._steps_done in (self.warmup_steps, self.warmup_steps + self.steps):
            synchronise(self.device)
        self._stamps.append(time.perf_counter())


def count_batch(inputs: Mapping[str, Any], work: MatrixWork, *, pad_token_id: int) -> _Counts:
    """Count the tokens, the predicted ones, the labelled sequences and the looks of a batch of ids [B, T].

    Padding is where the attention mask says so, and where there is none of that kind, the padding token.
    """
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    order = inputs.get("next_sentence_label")
    is_token = ids != pad_token_id if mask is None or mask.shape != ids.shape else mask != 0
    return _Counts(
        tokens=is_token.sum(),
        predicted=number_of_labels(inputs["labels"] if "labels" in inputs else inputs["shift_labels"]),
        sequences=torch.zeros((), dtype=torch.int64) if order is None else number_of_labels(order),
        looks=count_looks(work, _lengths(is_token, inputs.get("position_ids"))),
        positions=ids.numel(),
    )


def _lengths(is_token: torch.Tensor, position_ids: torch.Tensor | None) -> torch.Tensor:
    """Count the tokens of each sequence of rows [B, T], in the first of B x T places; a GPU is not waited for.

    As for the model, a sequence begins with its row, and where positions do not go on by one.
    """
    begins = torch.zeros_like(is_token)
    begins[:, 0] = True
    if position_ids is not None:
        begins[:, 1:] = position_ids.diff(dim=1) != 1
    numbers = begins.flatten().cumsum(0) - 1
    return torch.zeros_like(numbers).scatter_add_(0, numbers, is_token.flatten().long())


def _flops(work: MatrixWork, counts: _Counts) -> float:
    return training_flops(
        work,
        tokens=int(counts.tokens),
        predicted=int(counts.predicted),
        sequences=int(counts.sequences),
        looks=int(counts.looks),
    )
