"""Ranks of a process group, for the suite's tests of tensor parallelism and of fully sharded data parallelism.

A rank takes ten seconds to import torch and transformers on one core, so ranks are kept from test to test. A test that
fails or hangs in one rank ends all of them, and the next test starts new ones.
"""

import functools
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers.testing_utils import torch_device

SECONDS = 240
_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def _get_distributed_device_type() -> str:
    return torch_device


def _get_distributed_backend() -> str:
    return _BACKENDS[torch_device]


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu") if torch_device == "cpu" else torch.device(torch_device, rank)


def _set_rank_device(rank: int) -> None:
    if torch_device != "cpu":
        torch.cuda.set_device(rank)


@functools.cache
def _ranks(number: int) -> list[ProcessPoolExecutor]:
    # Spawned: a forked process cannot use autograd once its parent has. A pool a rank: torch remembers the sizes of a
    # rank's shards, so a process must not be another rank in the next test.
    context = multiprocessing.get_context("spawn")
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    return [ProcessPoolExecutor(1, mp_context=context, **one_thread) for _ in range(number)]


def _end_all_ranks() -> None:
    _ranks.cache_clear()
    for process in multiprocessing.active_children():
        process.kill()


def _start_rank_processes(function: Callable[..., None], args: tuple[Any, ...] = (), nprocs: int = 1) -> None:
    """Call `function(rank, *args)` in as many processes as ranks; all of them wait for one another inside.

    Raises:
        TimeoutError: If the ranks are not done in time.
        Exception: Whatever the first rank to fail raised.
    """
    futures = [process.submit(function, rank, *args) for rank, process in enumerate(_ranks(nprocs))]
    done, waiting = wait(futures, timeout=SECONDS, return_when=FIRST_EXCEPTION)
    failures = [future.exception() for future in done if future.exception() is not None]
    if failures or waiting:
        _end_all_ranks()
    if failures:
        raise failures[0]
    if waiting:
        raise TimeoutError(f"{len(waiting)} of {nprocs} ranks were not done after {SECONDS} seconds.")


def run_distributed(world_size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function of a rank and arguments one of the arguments alone, run by all ranks of a process group."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            with tempfile.TemporaryDirectory() as folder:
                meeting_point = Path(folder, "store").as_uri()
                _start_rank_processes(_as_one_rank, (world_size, meeting_point, function, args), nprocs=world_size)

        return run

    return decorate


def _as_one_rank(
    rank: int, world_size: int, meeting_point: str, function: Callable[..., None], args: tuple[Any, ...]
) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    _set_rank_device(rank)
    dist.init_process_group(_get_distributed_backend(), init_method=meeting_point, rank=rank, world_size=world_size)
    function(rank, *args)
    dist.destroy_process_group()
