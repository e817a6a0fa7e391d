"""The rate at which the machine multiplies matrices: the most that a training step can reach, as measured here."""

import math
import time
from collections.abc import Sequence

import torch

from .machine import measuring_device, synchronise

Shape = tuple[int, int, int]

TRAINING_SHAPE: Shape = (4096, 1024, 4096)
"""Rows, inner and columns of a product as a training step has it: many tokens through a wide layer."""
_SQUARES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
_SECONDS_A_SHAPE = 0.25
_LEAST_REPEATS = 2
_LONGEST_PRODUCT = 2.0
PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matrix_rates() -> dict[str, float]:
    """Measure the best rate over several shapes in each precision, in floating-point operations a second.

    A rate that shared cores or a warm GPU allow at this moment: measure it in the same run as what is divided by it.
    """
    device = measuring_device()
    shapes = [*((side, side, side) for side in _SQUARES[device.type]), TRAINING_SHAPE]
    return {name: best_rate(shapes, dtype, device=device) for name, dtype in PRECISIONS.items()}


def best_rate(shapes: Sequence[Shape], dtype: torch.dtype, *, device: torch.device) -> float:
    """Measure the best rate over shapes, in operations a second; the first should be the smallest.

    Those are left out of which a product would take seconds at the rate so far: a CPU without instructions for a type
    multiplies a thousandth as fast in it.
    """
    best = 0.0
    for shape in shapes:
        if not best or 2.0 * math.prod(shape) / best < _LONGEST_PRODUCT:
            best = max(best, product_rate(shape, dtype, device=device))
    return best


def product_rate(shape: Shape, dtype: torch.dtype, *, device: torch.device) -> float:
    """Measure the fastest of several products [M, K] x [K, N], of 2 M K N operations each, in operations a second."""
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(inner, columns, device=device).to(dtype)
    product = left @ right  # the first one chooses a kernel and fetches memory
    synchronise(device)
    fastest, begin, repeats = float("inf"), time.perf_counter(), 0
    while repeats < _LEAST_REPEATS or time.perf_counter() - begin < _SECONDS_A_SHAPE:
        before = time.perf_counter()
        torch.mm(left, right, out=product)
        synchronise(device)
        fastest, repeats = min(fastest, time.perf_counter() - before), repeats + 1
    return 2.0 * rows * inner * columns / fastest
