"""The machine that measures: its device, its memory and what it runs, in numbers that compare on CPU and on CUDA."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..evaluation.provenance import describe_hardware, describe_versions
from ..training.launch import resolve_precision

_PROCESS_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Machine:
    """What a run of the bench was measured on.

    Attributes:
        device: `cpu` or `cuda`.
        name: The processor's or the GPU's name.
        threads: Threads that torch computes with on the CPU.
        fast_bf16: Whether the device multiplies bf16 matrices faster than fp32 ones.
        python: Version of Python.
        torch: Version of torch.
        transformers: Version of transformers.
        hf_minilm: Version of this package.
    """

    device: str
    name: str
    threads: int
    fast_bf16: bool
    python: str
    torch: str
    transformers: str
    hf_minilm: str


def describe_machine() -> Machine:
    """Look at the machine and the versions; touches the GPU, so it is for a process of its own."""
    found: dict[str, Any] = {**describe_hardware(measuring_device()), **describe_versions()}
    return Machine(**found, fast_bf16=resolve_precision("auto") == "bf16")


def measuring_device() -> torch.device:
    """Give the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device, *, before: int = 0) -> int:
    """Most bytes held so far: by tensors on a GPU, resident by this process on a CPU.

    On Linux the process's own high-water mark is read. `ru_maxrss` would not do there: a process inherits it from the
    one that started it, through `exec`, so that a large parent hides what a small child takes.

    Args:
        device: Whose memory.
        before: What `memory_now` gave earlier. Linux adds its counts up from parts and is some hundred kB off, so that
            the most of all can read as less.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    own = _status_bytes("VmHWM")
    # The unit of ru_maxrss is a kilobyte, on macOS a byte.
    own = own or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(own, before)


def memory_now(device: torch.device) -> int:
    """Bytes held at this moment: by tensors on a GPU, resident by this process on a CPU.

    Elsewhere than on Linux the latter is the most so far.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status_bytes("VmRSS") or peak_memory(device)


def _status_bytes(field: str) -> int:
    """Read a size from Linux's account of this process; 0 where there is none."""
    if not _PROCESS_STATUS.exists():
        return 0
    for line in _PROCESS_STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def one_gpu(environment: dict[str, str]) -> dict[str, str]:
    """Leave one GPU visible: with several, Trainer would share a batch out over all of them and ours would not."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "0")
    return {**environment, "CUDA_VISIBLE_DEVICES": visible.split(",")[0]}


def process_environment() -> dict[str, str]:
    """Give the environment of a contestant's process: one GPU, no network, and no warning about forked tokenizers."""
    return one_gpu({**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
