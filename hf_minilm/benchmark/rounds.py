"""The rounds of a contest: each contestant once a round, in turn, and ratios within a round.

What disturbs a machine for a minute disturbs both sides of a ratio, when they are measured one after the other. Every
other round goes in the opposite order, so that a slow drift favours nobody.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .contests import Contest, Contestant, Figure
from .processes import Outcome
from .work import MachineWork, Work

CarryOut = Callable[[Work], Outcome]


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of some values."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Sum up values; None where there are none."""
        return cls(min(values), median(values), max(values)) if values else None

    def to_json(self) -> dict[str, float]:
        """Give the three."""
        return {"min": self.least, "median": self.middle, "max": self.most}


@dataclass
class Results:
    """What the rounds of a contest gave.

    Attributes:
        contest: The contest.
        outcomes: For each contestant, by name, the outcome of each round.
        matrix_rates: For each round the machine's rates by precision, in operations a second; empty where it failed.
    """

    contest: Contest
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    matrix_rates: list[dict[str, float]] = field(default_factory=list)

    @property
    def all_lived(self) -> bool:
        """Whether no contestant died in any round."""
        return all(outcome.figures is not None for rounds in self.outcomes.values() for outcome in rounds)

    def spread(self, name: str, key: str) -> Spread | None:
        """Sum up a figure of a contestant over the rounds; None where it has none."""
        return Spread.of([value for value in self._values(name, key) if value is not None])

    def ratio(self, contestant: Contestant, figure: Figure) -> Spread | None:
        """Sum up ours / peer over the rounds in which both lived; None for ours."""
        if contestant.against is None:
            return None
        ours, theirs = self._values(contestant.against, figure.key), self._values(contestant.name, figure.key)
        return Spread.of([a / b for a, b in zip(ours, theirs, strict=True) if a is not None and b])

    def utilisation(self, name: str) -> Spread | None:
        """Sum up the share of the matrix rate of the same round that a training reached; None where there is none."""
        shares = []
        for outcome, rates in zip(self.outcomes[name], self.matrix_rates, strict=True):
            figures = outcome.figures or {}
            if "flops_per_second" in figures and rates:
                shares.append(figures["flops_per_second"] / rates[figures["precision"]])
        return Spread.of(shares)

    def _values(self, name: str, key: str) -> list[float | None]:
        return [(outcome.figures or {}).get(key) for outcome in self.outcomes[name]]


def hold(contest: Contest, rounds: int, carry_out: CarryOut, *, first_rates: dict[str, float]) -> Results:
    """Hold a contest.

    Args:
        contest: Who does what.
        rounds: How often.
        carry_out: Has work done in a process of its own.
        first_rates: Matrix rates that were measured just before.
    """
    results = Results(contest, {contestant.name: [] for contestant in contest.contestants})
    for number in range(rounds):
        rates = first_rates if number == 0 else (carry_out(MachineWork()).figures or {}).get("matrix_rates", {})
        results.matrix_rates.append(rates)
        for contestant in in_turn(contest.contestants, number):
            outcome = carry_out(contestant.work)
            results.outcomes[contestant.name].append(outcome)
            _say(contest, contestant, number, rounds=rounds, outcome=outcome)
    return results


def in_turn(contestants: Sequence[Contestant], number: int) -> Iterator[Contestant]:
    """Iterate over the contestants in the order of a round, counted from 0."""
    return iter(contestants) if number % 2 == 0 else reversed(contestants)


def _say(contest: Contest, contestant: Contestant, number: int, *, rounds: int, outcome: Outcome) -> None:
    figure, figures = contest.figures[0], outcome.figures
    told: Any = outcome.error
    if figures is not None:
        told = f"{figures[figure.key] * figure.scale:,.{figure.digits}f} {figure.title}"
    place = f"{contest.name}, round {number + 1} of {rounds}, {contestant.name}"
    print(f"{place}: {told}", file=sys.stderr, flush=True)
