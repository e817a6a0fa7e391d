"""Freed memory is kept: seen by the page faults that the system counts."""

import platform
import subprocess
import sys

import pytest

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
    from hf_minilm.training import memory

    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_freed_memory()
