"""Muon for matrices of which each process holds some rows: every process orthogonalises some of the matrices.

Newton-Schulz iterations need a whole matrix, and all else in Muon's step is done number by number. So each process
moves its rows of every momentum, sends them to the process that a matrix falls to, and gets its rows of the result
back: two exchanges a step, in the type of the iterations. The matrices are dealt out by the work that they make, and no
process orthogonalises one that another does. The numbers are those of `torch.optim.Muon`.

Shapes: a matrix is R x C, and a process holds ceil(R / processes) rows of it, the last ones fewer or none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.distributed
from torch.distributed.tensor import DTensor

from .stacked_muon import StackedMuon, newton_schulz


class ShardedMuon(StackedMuon):
    """`torch.optim.Muon` for parameters that FSDP2 has shared out by rows; its state is shared out likewise.

    All processes must have the same gradients.
    """

    def _orthogonal(self, wishes: dict[torch.Tensor, torch.Tensor], group: dict[str, Any]) -> list[torch.Tensor]:
        mesh = cast(DTensor, next(iter(wishes))).device_mesh
        shapes = [matrix.shape for matrix in wishes]
        rows = list(wishes.values())
        return orthogonalise(rows, shapes, mesh["shards"].get_group(), partial(newton_schulz, group=group))


def orthogonalise(
    rows: Sequence[torch.Tensor],
    shapes: Sequence[torch.Size],
    group: torch.distributed.ProcessGroup,
    function: Callable[[list[torch.Tensor]], list[torch.Tensor]],
) -> list[torch.Tensor]:
    """Apply a function to whole matrices, each on one of the processes that hold their rows.

    Args:
        rows: This process's rows of every matrix, all of one type.
        shapes: Of the whole matrices.
        group: The processes.
        function: Of matrices [R, C], to as many of the same shapes.

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
    whole = [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
    results = [matrix.split(sizes[index]) for index, matrix in zip(falls_to[own], function(whole), strict=True)]
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
