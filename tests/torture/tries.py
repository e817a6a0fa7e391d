"""How many tries a row of the reliability table makes, from which seed, and how many of them went well.

The environment says so, read here alone: `HF_MINILM_TORTURE=full` makes the tries of a release, and anything else the
few of a pull request; `HF_MINILM_TORTURE_SEED` replaces the seed, and `HF_MINILM_TORTURE_LOG` names a file that gets a
line of JSON a row.
"""

import contextlib
import json
import os
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

IS_FULL = os.environ.get("HF_MINILM_TORTURE") == "full"
SEED = int(os.environ.get("HF_MINILM_TORTURE_SEED", "0"))
MOST_FAILURES = 8
"""A row that fails so often is given up: each failure may be a wait for something that does not come."""

MARKS = [pytest.mark.slow, pytest.mark.timeout(6 * 3600)]
LINES: list[dict[str, object]] = []


class Row:
    """Counts the tries of one row, and fails at the end if one of them did.

    Args:
        name: Of the row, such as `R5`.
        case: Which part of it.
        tries: How many in a release.
        few: How many in a pull request.
    """

    def __init__(self, name: str, case: str = "", *, tries: int, few: int) -> None:
        self.name, self.case = name, case
        self.tries = tries if IS_FULL else few
        self.random = random.Random(f"{SEED} {name} {case}")
        self.done = self.successes = 0
        self.seconds: dict[str, list[float]] = {}
        self._failures: list[str] = []

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Count one try; its failure is kept for the end."""
        self.done += 1
        self._is_void = self._is_last_good = False
        try:
            yield
            self._is_last_good = True
            if self._is_void:
                self.done -= 1
            else:
                self.successes += 1
        except (AssertionError, OSError, ValueError, KeyError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"line {place.lineno} of {Path(place.filename).name}"
            self._failures.append(f"try {self.done}, {what}, {where}: {error}")

    def count_more(self, number: int) -> None:
        """Count more tries that ended as the last one did."""
        self.done += number
        self.successes += number if self._is_last_good else 0

    def void(self) -> None:
        """Say inside of a try that it does not count: what it was to injure had ended before."""
        self._is_void = True

    @property
    def is_lost(self) -> bool:
        """Whether so many tries failed that the others would tell nothing new."""
        return len(self._failures) >= MOST_FAILURES

    def measure(self, name: str, seconds: float) -> None:
        """Note how long something took, for the line of the row."""
        self.seconds.setdefault(name, []).append(seconds)

    def __enter__(self) -> Self:
        self._begin = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        longest = {f"longest {name}": round(max(values), 2) for name, values in self.seconds.items()}
        line = {"row": self.name, "case": self.case, "tries": self.done, "successes": self.successes}
        line |= {"seconds": round(time.monotonic() - self._begin, 1), "seed": SEED, **longest}
        LINES.append(line)
        if "HF_MINILM_TORTURE_LOG" in os.environ:
            with Path(os.environ["HF_MINILM_TORTURE_LOG"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "failures": self._failures}) + "\n")
        if error is None and self._failures:
            listed = "\n".join(self._failures)
            pytest.fail(f"{self.name} {self.case}: {len(self._failures)} of {self.done} failed, seed {SEED}\n{listed}")


def sentence(line: dict[str, object]) -> str:
    """A row's line for a person to read."""
    return "  ".join(f"{name}: {value}" for name, value in line.items() if value != "")
