"""Work that goes on beside the training, one piece at a time."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class BackgroundWork:
    """A thread for the part of a save that needs the disk alone; a context manager, which waits at its end.

    An error of the work comes out where the next piece begins, or at the end.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin a piece of work, once the one before is done.

        Raises:
            Exception: That of the piece before.
        """
        self.wait()
        self._thread = threading.Thread(target=self._do, args=(work,), name="hf_minilm background")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the work is done.

        Raises:
            Exception: That of the work.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:
                raise
