"""The gradient of a step: the exact mean over everything that the step predicts, however its rows are divided.

A step's rows are divided into parts. By default each process has one, and gradients are added up by the processes'
all-reduce, in whatever order that takes: fast, and equal up to rounding for any number of processes. With
`training.gradient_parts` the parts are as many whatever the number of processes, each with its own dropout, and their
gradients are added up two by two in one fixed tree: then any number of processes that divides the parts gives the very
same bits (as EasyScale does, Li et al. 2023, SC'23).
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed
from accelerate import Accelerator

from ..data.objectives import Batch, Objective
from ..data.order import RowKey, share
from ..data.sequences import IGNORED
from .prepared_batch import on_device
from .processes import Processes
from .recipe import TrainingSettings

Losses = dict[str, torch.Tensor]
"""Scalars: `loss`, and the parts that it has, `masked` and `next_sentence`."""
_LOSSES = {"loss": "loss", "masked_lm_loss": "masked", "next_sentence_loss": "next_sentence"}


@dataclass(frozen=True)
class Part:
    """A part of a step's rows, as micro-batches.

    Attributes:
        number: Which part of the step it is; from 0.
        batches: What goes through the model at once, in order, as the model takes it.
        predicted: Tokens to predict (causal labels already leave out each sequence's first).
        sequences: Labelled pairs; None: the order of sentences is no question of this objective.
    """

    number: int
    batches: Sequence[dict[str, Any]]
    predicted: int
    sequences: int | None


def part_of(number: int, batches: list[Batch], as_taken: Callable[[Batch], dict[str, Any]] = dict) -> Part:
    """Count what a part's micro-batches predict, and give them as the model takes them."""
    has_pairs = "next_sentence_label" in batches[0]
    return Part(
        number,
        [as_taken(batch) for batch in batches],
        sum(_number_of(batch["labels"]) for batch in batches),
        sum(_number_of(batch["next_sentence_label"]) for batch in batches) if has_pairs else None,
    )


def own_parts(
    objective: Objective,
    settings: TrainingSettings,
    processes: Processes,
    *,
    rows: list[RowKey],
    step: int,
    as_taken: Callable[[Batch], dict[str, Any]] = dict,
) -> list[Part]:
    """Make the parts of a step that this process works on, on the CPU, with batches as the model takes them."""
    num_parts = settings.gradient_parts or processes.number
    parts = []
    for number in share(range(num_parts), processes.index, num_processes=processes.number):
        own = share(rows, number, num_processes=num_parts)
        size = settings.micro_batch_rows or len(own)
        batches = [objective.batch(step, own[start : start + size]) for start in range(0, len(own), size)]
        parts.append(part_of(number, batches, as_taken))
    return parts


def _number_of(labels: torch.Tensor) -> int:
    return int(np.count_nonzero(labels.numpy() != IGNORED))  # on one thread, see `prepared_batch`


def sent(parts: list[Part], device: torch.device) -> list[Part]:
    """Send parts to the device where the model is."""
    return with_batches(parts, lambda batch: on_device(batch, device))


def with_batches(parts: list[Part], change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Part]:
    """Change the batches of parts."""
    return [replace(part, batches=[*map(change, part.batches)]) for part in parts]


def count_labels(parts: list[Part]) -> tuple[int, int]:
    """Add up the tokens to predict and the labelled pairs."""
    return sum(part.predicted for part in parts), sum(part.sequences or 0 for part in parts)


def add_up_gradient(
    model: torch.nn.Module,
    parts: list[Part],
    *,
    accelerator: Accelerator,
    processes: Processes,
    settings: TrainingSettings,
    step: int,
    arguments: dict[str, float],
) -> list[Losses]:
    """Leave the step's gradient, of all parts of all processes, in the parameters.

    Args:
        model: As `accelerator.prepare` made it.
        parts: This process's, on the model's device.
        accelerator: The devices.
        processes: The processes.
        settings: Those of the training.
        step: The step's number, from 0.
        arguments: What each call of the model gets besides its batch: the counts over the whole step.

    Returns:
        The losses of each part, by name; those of all parts of all processes add up to the step's.
    """
    tree = None if settings.gradient_parts is None else _Tree(list(model.parameters()))
    # Data-parallel gradients are averaged over processes, and each loss is divided by all processes' count already.
    scale = processes.number if tree is None else 1
    losses = []
    for part in parts:
        of_batches = []
        for index, inputs in enumerate(part.batches):
            seed_dropout(settings.seed, step, part.number, index)
            is_last = index == len(part.batches) - 1 and tree is None
            with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
                outputs = model(**inputs, **arguments)
                accelerator.backward(outputs.loss * scale)
            of_batches.append(_losses_of(outputs))
        losses.append({name: torch.stack([each[name] for each in of_batches]).sum() for name in of_batches[0]})
        if tree is not None:
            tree.add()
    if tree is not None:
        tree.finish(processes)
    return losses


def _losses_of(outputs: Any) -> Losses:
    return {name: outputs[key].detach().float() for key, name in _LOSSES.items() if outputs.get(key) is not None}


def seed_dropout(seed: int, step: int, part: int, micro_batch: int) -> None:
    """Make dropout a function of where it happens, so that a resumed run drops the same features."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, part, micro_batch]).generate_state(1, np.uint64)[0]))


class _Tree:
    """Adds up the gradients of parts two by two: 0 + 1, 2 + 3, then the two sums, and so on.

    Addition is commutative to the bit but not associative, so that the tree alone decides the result: a process adds up
    the branch of its own parts, and two processes then exchange what both of them lack.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._branches: list[tuple[int, torch.Tensor]] = []  # how many parts each adds up, and their sum

    def add(self) -> None:
        """Take the gradient of the next part out of the parameters."""
        gradients = [each.grad if each.grad is not None else torch.zeros_like(each) for each in self.parameters]
        height, branch = 1, torch.cat([gradient.flatten() for gradient in gradients])
        for parameter in self.parameters:
            parameter.grad = None
        while self._branches and self._branches[-1][0] == height:
            _, before = self._branches.pop()
            height, branch = 2 * height, before.add_(branch)
        self._branches.append((height, branch))

    def finish(self, processes: Processes) -> None:
        """Add up the branches of all processes, and put the sum into the parameters."""
        ((_, gradient),) = self._branches  # one, as both numbers are powers of two
        theirs = torch.empty_like(gradient)
        distance = 1
        while distance < processes.number:
            partner = processes.index ^ distance
            exchange = [
                torch.distributed.P2POp(torch.distributed.isend, gradient, partner),
                torch.distributed.P2POp(torch.distributed.irecv, theirs, partner),
            ]
            for work in torch.distributed.batch_isend_irecv(exchange):
                work.wait()
            gradient.add_(theirs)
            distance *= 2
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, gradient.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
