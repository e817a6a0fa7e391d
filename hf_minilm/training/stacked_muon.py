"""Muon that orthogonalises small matrices of one shape together: the bits of `torch.optim.Muon` in fewer products.

Muon's work is a chain of fifteen products for each matrix. Between the threads of a processor every product of two
small matrices is divided anew, and all wait for the last one, which takes longer than the product itself; of a stack
each thread takes whole matrices. A GPU is asked for one product where it was asked for many.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim._muon import _adjust_lr

_LARGEST_STACK = 2**20
"""Numbers in a stack, 2 MiB of them: matrices that fill a processor each are faster one after the other."""


class StackedMuon(torch.optim.Muon):
    """`torch.optim.Muon`, in other words: first all momenta, then all orthogonal matrices, then all steps.

    Attributes:
        found_inf: Where the gradients are, 1 if nothing is to be moved by them, and otherwise 0; None: they move all.
    """

    found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient; a closure is the matter of `MuonWithAdamW`."""
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            if matrices:
                self._step(matrices, group)

    def _step(self, matrices: list[torch.Tensor], group: dict[str, Any]) -> None:
        wishes = {matrix: self._wish(matrix, group["momentum"], nesterov=group["nesterov"]) for matrix in matrices}
        kept = self._unless_found(1 - group["lr"] * group["weight_decay"], otherwise=1.0)
        for matrix, update in zip(matrices, self._orthogonal(wishes, group), strict=True):
            own, rate = _local(matrix), group["lr"]
            own.mul_(kept)
            own.add_(self._unless_found(update), alpha=-_adjust_lr(rate, group["adjust_lr_fn"], matrix.shape))

    def _wish(self, matrix: torch.Tensor, momentum: float, *, nesterov: bool) -> torch.Tensor:
        """Move the momentum, and give this process's rows of what is to be orthogonalised, as it is multiplied."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        rows, own = _local(state["momentum_buffer"]), self._unless_found(_local(gradient))
        rows.lerp_(own, self._unless_found(1 - momentum))
        return (own.lerp(rows, momentum) if nesterov else rows).to(product_dtype(matrix.device.type))

    def _unless_found(self, value: Any, otherwise: float = 0.0) -> Any:
        return value if self.found_inf is None else torch.where(self.found_inf.bool(), otherwise, value)

    def _orthogonal(self, wishes: dict[torch.Tensor, torch.Tensor], group: dict[str, Any]) -> list[torch.Tensor]:
        """Give this process's rows of the orthogonal matrix for each matrix, from those of what it wishes."""
        return newton_schulz(list(wishes.values()), group)


@functools.cache
def product_dtype(device_type: str) -> torch.dtype:
    """Give the type of the iterations' products: torch's, bfloat16, but float32 on a CPU without a kernel for that.

    There a step of 28 matrices of 4 layers of width 128 takes seconds in bfloat16: a number after the other.
    """
    if device_type != "cpu":
        return torch.bfloat16
    has_kernel = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    return torch.bfloat16 if has_kernel and torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _local(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.to_local() if isinstance(matrix, DTensor) else matrix


def newton_schulz(matrices: Sequence[torch.Tensor], group: dict[str, Any]) -> list[torch.Tensor]:
    """Find about the nearest orthogonal matrix to each, by the iteration of Jordan et al. 2024.

    X <- a X + (b G + c G G) X with G = X X^T, from X divided by its norm, on whichever side is shorter.

    Args:
        matrices: [rows, columns] each, of any shapes and of one type.
        group: Muon's, with `ns_coefficients` (a, b, c), `ns_steps` and `eps`, the least norm.

    Returns:
        As many matrices of the same shapes.
    """
    wide = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    scaled = [matrix / matrix.norm().clamp(min=group["eps"]) for matrix in wide]
    found: dict[int, torch.Tensor] = {}
    for indices in _stacks(scaled):
        if len(indices) == 1:
            results = [_iterate(scaled[indices[0]], torch.addmm, group)]
        else:
            results = list(_iterate(torch.stack([scaled[index] for index in indices]), torch.baddbmm, group))
        found.update(zip(indices, results, strict=True))
    tall = [matrix.shape[0] > matrix.shape[1] for matrix in matrices]
    return [found[index].mT if is_tall else found[index] for index, is_tall in enumerate(tall)]


def _stacks(matrices: Sequence[torch.Tensor]) -> Iterator[list[int]]:
    """Divide matrices, by their numbers, into groups of one shape that are not too large."""
    by_shape: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(index)
    for shape, indices in by_shape.items():
        most = max(1, _LARGEST_STACK // shape.numel())
        yield from (indices[start : start + most] for start in range(0, len(indices), most))


def _iterate(matrix: torch.Tensor, add_product: Callable[..., torch.Tensor], group: dict[str, Any]) -> torch.Tensor:
    a, b, c = group["ns_coefficients"]
    for _ in range(group["ns_steps"]):
        gram = matrix @ matrix.mT
        matrix = add_product(matrix, add_product(gram, gram, gram, beta=b, alpha=c), matrix, beta=a)
    return matrix
