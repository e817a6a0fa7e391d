"""Muon for matrices of which each process holds some rows: every process orthogonalises some of the matrices.

Newton-Schulz iterations need a whole matrix, and all else in Muon's step is done number by number. So each process
moves its rows of every momentum, sends them to the process that a matrix falls to, and gets its rows of the result
back: two exchanges a step, in bfloat16, the type of the iterations. The matrices are dealt out by the work that they
make, and no process orthogonalises one that another does. The numbers are those of `torch.optim.Muon`.

Shapes: a matrix is R x C, and a process holds ceil(R / processes) rows of it, the last ones fewer or none.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.distributed
from torch.distributed.tensor import DTensor
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz


class ShardedMuon(torch.optim.Muon):
    """`torch.optim.Muon` for parameters that FSDP2 has shared out by rows; its state is shared out likewise."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every matrix that has a gradient; all processes have the same ones.

        Args:
            closure: Computes the loss anew, with its gradients.

        Returns:
            The closure's loss.
        """
        loss = loss_anew(closure)
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        matrices = [cast(DTensor, matrix) for matrix in group["params"] if matrix.grad is not None]
        if not matrices:
            return
        wishes = [self._wish(matrix, group["momentum"], nesterov=group["nesterov"]) for matrix in matrices]
        settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
        rows = orthogonalise(
            wishes,
            [matrix.shape for matrix in matrices],
            matrices[0].device_mesh["shards"].get_group(),
            lambda whole: _zeropower_via_newtonschulz(whole, *settings),
        )
        for matrix, update in zip(matrices, rows, strict=True):
            own, rate = matrix.to_local(), group["lr"]
            own.mul_(1 - rate * group["weight_decay"])
            own.add_(update, alpha=-_adjust_lr(rate, group["adjust_lr_fn"], matrix.shape))

    def _wish(self, matrix: DTensor, momentum: float, *, nesterov: bool) -> torch.Tensor:
        """Move the momentum, and give this process's rows of what is to be orthogonalised, in bfloat16."""
        state, gradient = self.state[matrix], cast(DTensor, matrix.grad)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        rows, own = state["momentum_buffer"].to_local(), gradient.to_local()
        rows.lerp_(own, 1 - momentum)
        return (own.lerp(rows, momentum) if nesterov else rows).bfloat16()


def loss_anew(closure: Callable[[], float] | None) -> float | None:
    """Call an optimizer's closure, if it was given one, with gradients although a step has none."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def orthogonalise(
    rows: Sequence[torch.Tensor],
    shapes: Sequence[torch.Size],
    group: torch.distributed.ProcessGroup,
    function: Callable[[torch.Tensor], torch.Tensor],
) -> list[torch.Tensor]:
    """Apply a function to whole matrices, each on one of the processes that hold their rows.

    Args:
        rows: This process's rows of every matrix, all of one type.
        shapes: Of the whole matrices.
        group: The processes.
        function: Of a matrix [R, C], to one of the same shape.

    Returns:
        This process's rows of every result.
    """
    processes, own = group.size(), group.rank()
    owners = deal_out(shapes, processes)
    sizes = [_row_counts(shape[0], processes) for shape in shapes]
    falls_to = [[index for index, owner in enumerate(owners) if owner == process] for process in range(processes)]
    parts = _exchange(
        [[rows[index] for index in indices] for indices in falls_to],
        [[(sizes[index][process], shapes[index][1]) for index in falls_to[own]] for process in range(processes)],
        group,
        like=rows[0],
    )
    results = [
        function(torch.cat(pieces)).split(sizes[index])
        for index, pieces in zip(falls_to[own], zip(*parts, strict=True), strict=True)
    ]
    back = _exchange(
        [[result[process] for result in results] for process in range(processes)],
        [[(sizes[index][own], shapes[index][1]) for index in indices] for indices in falls_to],
        group,
        like=rows[0],
    )
    by_index = {
        index: part
        for indices, found in zip(falls_to, back, strict=True)
        for index, part in zip(indices, found, strict=True)
    }
    return [by_index[index] for index in range(len(rows))]


def deal_out(shapes: Sequence[torch.Size], processes: int) -> list[int]:
    """Name the process of each matrix: the largest first, each to the one with the least work so far."""
    work = [0] * processes
    owners = [0] * len(shapes)
    for index in sorted(range(len(shapes)), key=lambda index: -_work(shapes[index])):
        owners[index] = work.index(min(work))
        work[owners[index]] += _work(shapes[index])
    return owners


def _work(shape: torch.Size) -> int:
    return shape.numel() * min(shape)


def _row_counts(rows: int, processes: int) -> list[int]:
    """Count the rows that each process holds, as FSDP2 cuts them."""
    most = -(-rows // processes)
    return [max(0, min(most, rows - process * most)) for process in range(processes)]


def _exchange(
    parts: list[list[torch.Tensor]],
    shapes: list[list[tuple[int, int]]],
    group: torch.distributed.ProcessGroup,
    *,
    like: torch.Tensor,
) -> list[list[torch.Tensor]]:
    """Send each process its list of tensors, and get one of known shapes from each; all of one type, as `like`."""
    sent = torch.cat([like.new_empty(0), *(part.reshape(-1) for of_one in parts for part in of_one)])
    counts = [[rows * columns for rows, columns in of_one] for of_one in shapes]
    received = sent.new_empty(sum(map(sum, counts)))
    sent_counts = [sum(part.numel() for part in of_one) for of_one in parts]
    torch.distributed.all_to_all_single(received, sent, [sum(count) for count in counts], sent_counts, group=group)
    pieces = iter(received.split([count for of_one in counts for count in of_one]))
    return [[next(pieces).view(shape) for shape in of_one] for of_one in shapes]
