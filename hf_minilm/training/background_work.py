"""Work that goes on beside the training, one piece at a time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class BackgroundWork:
    """A thread for the part of a save that needs the disk alone; a context manager, which waits at its end.

    An error of the work comes out where the next piece begins, or at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hf_minilm background")
        self._work: Future[Any] | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin a piece of work, once the one before is done.

        Raises:
            Exception: That of the piece before.
        """
        self.wait()
        self._work = self._thread.submit(work)

    def wait(self) -> None:
        """Wait until the work is done.

        Raises:
            Exception: That of the work.
        """
        work, self._work = self._work, None
        if work is not None:
            work.result()

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
        finally:
            self._thread.shutdown()
