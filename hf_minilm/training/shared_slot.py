"""A place in memory through which a forked process hands over one object after the other.

Through a pipe an object goes in pieces of 64 kB, for each of which both processes are woken: a batch of 256 x 256 takes
4 ms. Here its arrays are copied into memory that both see, and a pipe says that they are there: 0.7 ms.
"""

import mmap
import pickle
from multiprocessing.context import ForkContext
from typing import Any

_BYTES = 2**26
"""Of address space; memory is taken as it is written to. What is larger goes through the pipe."""


class SharedSlot:
    """One object at a time, from the process that is forked after this is made to the one that made it.

    Args:
        context: Of the process to be forked.
    """

    def __init__(self, context: ForkContext) -> None:
        self.receiving, self.giving = context.Pipe()
        self._memory = mmap.mmap(-1, _BYTES)
        self._is_free = True

    def put(self, value: Any) -> None:
        """Give an object, as soon as the one before was taken; in the forked process.

        Raises:
            OSError, EOFError: If nobody can take it any more.
        """
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        arrays = [buffer.raw() for buffer in buffers]
        if not self._is_free:
            self.giving.recv_bytes()
        self._is_free = False
        if sum(map(len, arrays)) > len(self._memory):
            content, arrays = pickle.dumps(value), []
        self._memory.seek(0)
        for array in arrays:
            self._memory.write(array)
        self.giving.send((content, [len(array) for array in arrays]))

    def take(self) -> Any:
        """Wait for an object; its arrays are copies.

        Raises:
            OSError, EOFError: If nobody can give it any more.
        """
        content, sizes = self.receiving.recv()
        self._memory.seek(0)
        arrays = [bytearray(self._memory.read(size)) for size in sizes]
        self.receiving.send_bytes(b"")
        return pickle.loads(content, buffers=arrays)
