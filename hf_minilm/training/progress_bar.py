"""What a person sees of a run while it trains."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from .checkpoint import TrainingState
from .schedule import Budget, progress


class ProgressBar:
    """The share of the budget that is done as a bar, with the time left, the losses and the tokens a second.

    Attributes:
        speed: Token positions a second since the process began to train.
        left: The time left, as a text. The first step, which compiles, says nothing of how long the others take.
        first_step: When it ended, and the share of the budget that was done then.
        waited: Seconds in which the device had nothing to do while the next batch was made; at most, on a GPU, which
            may have ended its work at any moment of making it.
    """

    def __init__(self, bar: "tqdm[Any]", budget: Budget, state: TrainingState) -> None:
        self.bar, self.budget = bar, budget
        self.start, self.start_tokens = time.monotonic(), state.tokens
        self.speed = self.waited = 0.0
        self.left = "?"
        self.first_step: tuple[float, float] | None = None

    @property
    def waiting_share(self) -> float:
        """Share of the time in which the device waited for data."""
        return round(self.waited / max(time.monotonic() - self.start, 1e-9), 4)

    def advance(self, state: TrainingState) -> None:
        """Move to where the run stands."""
        now, done = time.monotonic(), _share_done(self.budget, state)
        self.speed = round((state.tokens - self.start_tokens) / max(now - self.start, 1e-9), 1)
        if self.first_step is None:
            self.first_step = now, done
        self.left = _time_left(self.first_step, (now, done))
        self.bar.update(done - self.bar.n)

    def show(self, losses: dict[str, float], *, skipped: int) -> None:
        """Show the last losses, how fast it goes, and how many steps were left out, if any."""
        shown = {name: f"{value:.3f}" for name, value in sorted(losses.items())}
        speed = {"tokens/s": f"{self.speed:,.0f}", "waiting": f"{self.waiting_share:.1%}"}
        left_out = {"left out": skipped} if skipped else {}
        self.bar.set_postfix({"left": self.left, **shown, **speed, **left_out}, refresh=False)


@contextlib.contextmanager
def progress_bar(budget: Budget, state: TrainingState, *, is_shown: bool) -> Iterator[ProgressBar]:
    """Show a bar on standard error: every second on a terminal, twice a minute in a log.

    Args:
        budget: When the run ends.
        state: Where it stands.
        is_shown: Whether there is anything to see; the main process shows the bar of all.
    """
    with tqdm(
        total=1.0,
        initial=_share_done(budget, state),
        desc="training",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
        disable=not is_shown,
        mininterval=1 if sys.stderr.isatty() else 30,
    ) as bar:
        yield ProgressBar(bar, budget, state)


def _share_done(budget: Budget, state: TrainingState) -> float:
    return progress(budget, state.step, tokens=state.tokens, seconds=state.seconds)


def _time_left(begin: tuple[float, float], now: tuple[float, float]) -> str:
    """Write the time left as a text, from two moments and the shares of the budget that were done at them."""
    done = now[1] - begin[1]
    return tqdm.format_interval((1 - now[1]) * (now[0] - begin[0]) / done) if done > 0 else "?"
