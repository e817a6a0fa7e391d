"""Start and end of a training process: the processes asked for are the processes got, or nothing runs."""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed
from accelerate import Accelerator, InitProcessGroupKwargs

LAUNCH_LINE = "torchrun --standalone --nproc_per_node {processes} -m hf_minilm.cli.main pretrain RECIPE.yaml"
"""The line that starts several processes on one machine, with GPUs or without."""

# Tokenising a corpus is done by one process while the others wait.
_LONGEST_WAIT = timedelta(hours=2)
_LONGEST_ROW_FOR_EAGER = 256


def start_accelerator(precision: str, *, trackers: tuple[str, ...], folder: str) -> Accelerator:
    """Join the other processes, on CUDA devices where there are any and over gloo elsewhere.

    Args:
        precision: `fp32` or `bf16`.
        trackers: Names of Accelerate trackers.
        folder: Where trackers write.

    Raises:
        ValueError: If the number of processes is not what the launcher asked for, with the line that works.
    """
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if precision == "bf16" else "no",
        log_with=list(trackers) or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
    )
    check_processes(accelerator.num_processes, asked, what="the launcher's WORLD_SIZE")
    return accelerator


def check_processes(running: int, asked: int, *, what: str) -> None:
    """Compare the number of processes that run with the number that was asked for.

    Raises:
        ValueError: If they differ; each process would train alone and overwrite the others' files.
    """
    if running != asked:
        line = LAUNCH_LINE.format(processes=asked)
        raise ValueError(f"number of processes ({running}) must equal {what} ({asked}); start with: {line}")


def check_rows(batch_rows: int, *, num_processes: int) -> None:
    """Make sure that every process has a row of every step.

    Raises:
        ValueError: If there are more processes than rows.
    """
    if num_processes > batch_rows:
        raise ValueError(
            f"training.batch_rows ({batch_rows}) must be at least the number of processes ({num_processes}); "
            "raise it, or start fewer processes."
        )


def resolve_precision(precision: str) -> str:
    """Resolve `auto`: bf16 where the device multiplies bf16 matrices in hardware, else fp32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def resolve_attention(attention: str, *, precision: str, row_length: int) -> str:
    """Resolve `auto`: sdpa, but on a CPU in bf16 with short rows the written-out formula.

    There the backward pass of sdpa takes up to nine times its forward pass, and a whole step of rows of 128 tokens 10
    to 30 % more time than with the formula; see model_cards/LOG.md.
    """
    if attention != "auto":
        return attention
    on_cpu = not torch.cuda.is_available()
    return "eager" if on_cpu and precision == "bf16" and row_length <= _LONGEST_ROW_FOR_EAGER else "sdpa"


def end_process(code: int) -> None:
    """Leave the group and the interpreter at once: gloo's threads sometimes abort an ordinary interpreter exit."""
    if not torch.distributed.is_initialized():
        return
    if code == 0:
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
