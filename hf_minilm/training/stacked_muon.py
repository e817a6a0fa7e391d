"""Muon that orthogonalises small matrices of one shape together: the bits of `torch.optim.Muon` in fewer products.

Muon's work is a chain of fifteen products for each matrix. Between the threads of a processor every product of two
small matrices is divided anew, and all wait for the last one, which takes longer than the product itself; of a stack
each thread takes whole matrices. A GPU is asked for one product where it was asked for many.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch.distributed.tensor import DTensor
from torch.optim._muon import _adjust_lr

_LARGEST_STACK = {"cpu": 2**20, "cuda": 2**25}
"""Numbers in a stack by device: 2 MiB of them on a CPU, which matrices that are larger fill one after the other."""


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
        rate, rows = group["lr"], [_local(matrix) for matrix in matrices]
        kept = 1 - rate * group["weight_decay"]
        updates = self._orthogonal(dict(zip(matrices, self._wishes(matrices, group), strict=True)), group)
        torch._foreach_mul_(rows, kept if self.found_inf is None else torch.where(self.found_inf.bool(), 1.0, kept))
        for matrix, own, update in zip(matrices, rows, updates, strict=True):
            own.add_(update, alpha=-_adjust_lr(rate, group["adjust_lr_fn"], matrix.shape))

    def _wishes(self, matrices: list[torch.Tensor], group: dict[str, Any]) -> list[torch.Tensor]:
        """Move the momenta, and give this process's rows of what is to be orthogonalised, as it is multiplied.

        A momentum moves nowhere towards itself, and zeros have no direction: so nothing moves where that is not to be.
        """
        momenta = [_local(self._momentum(matrix)) for matrix in matrices]
        gradients = [_local(cast(torch.Tensor, matrix.grad)) for matrix in matrices]
        if self.found_inf is not None:
            found = self.found_inf.bool()
            gradients = [torch.where(found, *pair) for pair in zip(momenta, gradients, strict=True)]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        wishes = list(torch._foreach_lerp(gradients, momenta, group["momentum"])) if group["nesterov"] else momenta
        if self.found_inf is not None:
            wishes = list(torch._foreach_mul(wishes, 1 - self.found_inf))
        dtype = product_dtype(wishes[0].device.type)
        if wishes[0].dtype == dtype:
            return wishes
        rounded = [torch.empty_like(wish, dtype=dtype) for wish in wishes]
        torch._foreach_copy_(rounded, wishes)
        return rounded

    def _momentum(self, matrix: torch.Tensor) -> torch.Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(cast(torch.Tensor, matrix.grad))
        return cast(torch.Tensor, state["momentum_buffer"])

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
    if not matrices:  # as of a process that others leave nothing to do
        return []
    wide = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    norms = torch._foreach_norm(wide)
    found: dict[int, torch.Tensor] = {}
    for indices in _stacks(wide):
        if len(indices) == 1:
            (index,) = indices
            results = [_iterate(wide[index] / norms[index].clamp(min=group["eps"]), torch.addmm, group)]
        else:
            stack, divisors = (torch.stack([each[index] for index in indices]) for each in (wide, norms))
            stack = stack / divisors.clamp(min=group["eps"])[:, None, None]
            results = list(_iterate(stack, torch.baddbmm, group))
        found.update(zip(indices, results, strict=True))
    tall = [matrix.shape[0] > matrix.shape[1] for matrix in matrices]
    return [found[index].mT if is_tall else found[index] for index, is_tall in enumerate(tall)]


def _stacks(matrices: Sequence[torch.Tensor]) -> Iterator[list[int]]:
    """Divide matrices, by their numbers, into groups of one shape that are not too large."""
    by_shape: dict[torch.Size, list[int]] = {}
    largest = _LARGEST_STACK.get(matrices[0].device.type, _LARGEST_STACK["cpu"])
    for index, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(index)
    for shape, indices in by_shape.items():
        most = max(1, largest // shape.numel())
        yield from (indices[start : start + most] for start in range(0, len(indices), most))


def _iterate(matrix: torch.Tensor, add_product: Callable[..., torch.Tensor], group: dict[str, Any]) -> torch.Tensor:
    a, b, c = group["ns_coefficients"]
    for _ in range(group["ns_steps"]):
        gram = matrix @ matrix.mT
        matrix = add_product(matrix, add_product(gram, gram, gram, beta=b, alpha=c), matrix, beta=a)
    return matrix
