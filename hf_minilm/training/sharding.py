"""The model shared out over processes: of every weight, gradient and moment each process holds a part.

This is torch's FSDP2, `fully_shard` (Zhao et al. 2023, arXiv:2304.11277, is its first form): a layer's weights are
gathered when it computes and let go after, forward and backward, and its gradient is averaged into parts. What stands
around the layers is gathered once a step, tied embeddings with their other use among it. Arithmetic is that of data
parallel training: weights, gradients and sums of gradients in float32, products in bfloat16 where the run's are.
All processes share one copy, or groups of them have one each (`training.shard_over`, hybrid sharding): then weights
travel within a group only, such as a machine, and gradients are averaged within it and after that across the groups.

Accelerate's own way to FSDP2 is not taken, because without a GPU it becomes data parallel training and does not say so.

What is tied must be tied before it is shared out. transformers' `DistributedConfig(fsdp_size=...)` ties afterwards, and
torch then keeps an entry for each of the two modules; at the first forward pass it pads a part that is smaller than the
others' anew for each entry, and one of them reads the old numbers from then on. So a Llama of transformers 5.23 with 99
tied embeddings trains wrongly on two processes, and with 100 rightly.
"""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ..model.layers import Layer
from .launch import LAUNCH_LINE
from .optimizer import build_optimizer
from .recipe import OptimizerSettings, TrainingSettings


def processes_of_a_copy(settings: TrainingSettings, *, num_processes: int) -> int:
    """Count the processes that hold one copy of the model between them; 1 where each of them has all of it.

    One process that a launcher started, as when a run goes on with fewer of them, is left with all of the model.

    Args:
        settings: Its `parallelism`, and the processes to `shard_over`.
        num_processes: How many there are.

    Raises:
        ValueError: If there is one process because nothing started several, or if they do not make whole copies.
    """
    if settings.parallelism == "data":
        return 1
    if num_processes == 1:
        if "WORLD_SIZE" not in os.environ:
            line = LAUNCH_LINE.format(processes=2)
            raise ValueError(
                "training.parallelism (sharded) must have several processes to share the model out to; "
                f"start with: {line}"
            )
        return 1
    size = settings.shard_over or num_processes
    if num_processes % size:
        raise ValueError(
            f"training.shard_over ({size}) must divide the number of processes ({num_processes}); start a multiple of "
            "it, or set it to null for one copy over all."
        )
    return size


def shard_model(model: PreTrainedModel, device: torch.device, *, num_processes: int, copy_size: int) -> DeviceMesh:
    """Share a model's weights out over processes, in place; each layer is gathered for itself.

    Call it before the optimizer is built. The weights are those of the first process, as in data parallel training.

    Args:
        model: On `device`; compiled layers too.
        device: This process's.
        num_processes: How many there are; a process group joins them.
        copy_size: How many of them share one copy, neighbours by their numbers.

    Returns:
        The processes, [processes] or [copies, processes of a copy].

    Raises:
        ValueError: If a parameter is not shared out afterwards.
    """
    for parameter in model.parameters():
        torch.distributed.broadcast(parameter.detach(), src=0)
    if copy_size == num_processes:
        mesh = init_device_mesh(device.type, (num_processes,), mesh_dim_names=("shards",))
    else:
        shape = (num_processes // copy_size, copy_size)
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=("copies", "shards"))
    for module in model.modules():
        if isinstance(module, Layer):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name, parameter in model.named_parameters():
        if not (isinstance(parameter, DTensor) and _is_shared_out(parameter, mesh)):
            raise ValueError(f"parameter {name} ({type(parameter).__name__}) must be shared out; use parallelism data.")
    return mesh


def _is_shared_out(parameter: DTensor, mesh: DeviceMesh) -> bool:
    """Whether a parameter is cut by rows over the processes of a copy, and the same in all copies."""
    *copies, shards = parameter.placements
    return parameter.device_mesh == mesh and shards.is_shard(dim=0) and all(each.is_replicate() for each in copies)


class WholeModel:
    """A plain model beside a sharded one: whole while it is evaluated or saved, and without weights otherwise.

    A sharded model computes with all processes or not at all. This one can be used, and saved, by one of them.

    Args:
        model: The model before it is shared out and compiled, on the device where it will compute.

    Attributes:
        model: The plain model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        # What deepcopy finds here it takes for copied already, so that the weights are at no time there twice.
        empty = {id(each): nn.Parameter(_without_numbers(each), each.requires_grad) for each in model.parameters()}
        self.model = copy.deepcopy(model, cast(dict[int, Any], empty))

    @contextlib.contextmanager
    def gathered(self, sharded: nn.Module) -> Iterator[None]:
        """Hold the sharded model's weights, on every process. All processes enter it."""
        self._put(sharded, lambda shard: cast(DTensor, shard).full_tensor())
        try:
            yield
        finally:
            self._put(sharded, _without_numbers)

    def gather_optimizer(
        self, optimizer: torch.optim.Optimizer, settings: OptimizerSettings, *, keeps: bool
    ) -> torch.optim.Optimizer:
        """Build the optimizer of the gathered model, its state that of the sharded model's. All processes call it.

        Args:
            optimizer: Over the sharded parameters.
            settings: What it was built from.
            keeps: Whether this process wants the state; it then lies in the memory of its CPU.
        """
        whole = build_optimizer(self.model, settings)
        for group, shards in zip(whole.param_groups, optimizer.param_groups, strict=True):
            group.update({key: value for key, value in shards.items() if key != "params"})
            for parameter, shard in zip(group["params"], shards["params"], strict=True):
                for key, value in optimizer.state.get(shard, {}).items():
                    gathered = value.full_tensor() if isinstance(value, DTensor) else value
                    if keeps:
                        whole.state[parameter][key] = gathered.cpu()
        return whole

    @torch.no_grad()
    def _put(self, source: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Give the model parameters made from those of another with the same names; what is tied stays tied."""
        made: dict[int, nn.Parameter] = {}
        for name, parameter in source.named_parameters(remove_duplicate=False):
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(make(parameter), requires_grad=parameter.requires_grad)
            place, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(place), last, made[id(parameter)])


def _without_numbers(parameter: torch.Tensor) -> torch.Tensor:
    return torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
