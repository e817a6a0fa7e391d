"""Whether the layers are compiled: `torch.compile` fuses what stands between their matrix products.

Each layer is compiled for itself. All have the same code, so one is compiled and the others use it: a third of the
time of a whole model at 4 layers, and the step is the faster one, as the rotation and the 16-bit copies of the weights
are not made again in each direction.
"""

import os
import shutil
import sysconfig
from pathlib import Path

import torch
from torch import nn

from ..model.layers import Layer
from .launch import trains_on_gpu
from .schedule import Budget

_WORTHWHILE = {"steps": 1000.0, "seconds": 150.0}
"""Shortest budgets that gain: compiling takes 20 s on two cores, and saves a quarter of a step of 0.15 s."""


_FIRST_OF_TRITON = (7, 0)
"""The compute capability from which on Triton, which compiles for GPUs, knows them."""


def can_compile() -> bool:
    """Tell whether a layer can be compiled, by a compiler of C++ for a CPU, and for a GPU by Triton and one of C.

    What they compile is called from Python, so that its headers must be there too.
    """
    on_gpu = trains_on_gpu()
    if on_gpu and torch.cuda.get_device_capability() < _FIRST_OF_TRITON:
        return False
    names = (os.environ.get("CC", ""), "gcc", "clang") if on_gpu else ("g++", "clang++")
    has_compiler = any(shutil.which(name) is not None for name in names if name)
    return has_compiler and Path(sysconfig.get_path("include"), "Python.h").is_file()


def resolve_compilation(wish: str, *, precision: str, budget: Budget, positions_per_step: int) -> bool:
    """Resolve `auto`: compile on a GPU, and on a CPU in bf16, if there is a compiler and the budget is long enough.

    Args:
        wish: `auto`, `yes` or `no`.
        precision: `bf16`, or another one, in which products take most of the time on a CPU.
        budget: Of the run.
        positions_per_step: Token positions of a step.

    Raises:
        ValueError: If compiling is asked for and cannot be done.
    """
    if wish == "yes" and not can_compile():
        raise ValueError(
            "training.compile (yes) must have a compiler, g++ or clang++ (for a GPU of compute capability 7.0 or later "
            "gcc or clang), and Python's headers (python3-dev); install them, or set it to no."
        )
    if wish != "auto":
        return wish == "yes"
    if not can_compile() or not (trains_on_gpu() or precision == "bf16"):
        return False
    steps = budget.value / positions_per_step if budget.kind == "tokens" else budget.value
    return steps >= _WORTHWHILE["seconds" if budget.kind == "seconds" else "steps"]


def compile_layers(model: nn.Module) -> None:
    """Compile each layer of a model when it is first called; names and weights stay as they are."""
    for module in model.modules():
        if isinstance(module, Layer):
            module.compile()
