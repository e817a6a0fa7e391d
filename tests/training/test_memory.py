"""Freed memory is kept, seen by the page faults that the system counts; a full GPU is one line."""

import platform
import subprocess
import sys

import pytest
import torch

from hf_minilm.training import memory

COUNT_PAGE_FAULTS = """
import resource, sys
import torch
from hf_minilm.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(3):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_is_fetched_from_the_system_once():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT_PAGE_FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("keep", "as it is")
    }
    pages_of_a_tensor = 2**26 // 4096
    assert faults["as it is"] > pages_of_a_tensor
    assert faults["keep"] < pages_of_a_tensor / 100


def test_where_the_library_is_another_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_freed_memory()


def test_a_full_gpu_says_what_to_set():
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    rule = r"must hold .*\(training.micro_batch_rows: 16\); set it lower.*parallelism=sharded.*2\.00 GiB"
    with pytest.raises(MemoryError, match=rule), memory.explaining_full_gpu(16):
        raise full


def test_other_errors_of_a_step_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes$"), memory.explaining_full_gpu(None):
        raise RuntimeError("shapes")
