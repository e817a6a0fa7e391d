"""Memory that a training step frees is kept for the next one, and a GPU that has too little says what to do."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

import torch

_MMAP_MAX, _TOP_PAD, _TRIM_THRESHOLD = -4, -2, -1  # glibc's malloc.h
_HUGE_PAGES = 14  # MADV_HUGEPAGE of Linux
_PAGE = 2**21
_RESERVED_SHARE = 0.25


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory, in huge pages where the system has them.

    A step frees and allocates hundreds of large tensors. By default glibc gives each back to the system and asks for
    it again, and the system clears it page by page: at 4 layers x 256 a quarter to a third of a step on a CPU, see
    model_cards/LOG.md. The process then holds as much memory as it once used, and numbers do not change. Concerns this
    process alone; once is enough.

    Returns:
        Whether it could be done: with glibc on Linux.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 2**26))
    done = all(library.mallopt(name, value) == 1 for name, value in settings)
    if done:
        _reserve_huge_pages(library)
    return done


@contextlib.contextmanager
def explaining_full_gpu(micro_batch_rows: int | None) -> Iterator[None]:
    """Raise MemoryError of one line where a GPU's memory does not do.

    Args:
        micro_batch_rows: The run's setting.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        rows = "null" if micro_batch_rows is None else micro_batch_rows
        raise MemoryError(
            f"memory of the GPU must hold model, moments and a micro-batch (training.micro_batch_rows: {rows}); set it "
            "lower, the losses of a step remain what they are, or share the model out over several GPUs with "
            f"training.parallelism=sharded ({error})"
        ) from error


def _reserve_huge_pages(library: ctypes.CDLL) -> None:
    """Let the heap grow once, ask for huge pages there, and free it: memory is taken only where it is written."""
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = int(_RESERVED_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // _PAGE * _PAGE
    start = library.malloc(size)
    if start is None:
        return  # the process may not have so much; ordinary pages serve
    aligned = -(-start // _PAGE) * _PAGE
    library.madvise(aligned, size - _PAGE, _HUGE_PAGES)
    library.free(start)
