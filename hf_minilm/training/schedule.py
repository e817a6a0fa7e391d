"""How long a run lasts, how much of it is done, and the learning rate that follows from that share.

A schedule is a function of the share of the budget that is done, from 0 to 1, and of nothing else. The share is
steps / steps, tokens / tokens or seconds / seconds, so one formula serves every kind of budget, and neither the
number of processes nor a restart can change the rate of a given step.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

BudgetKind = Literal["steps", "tokens", "seconds"]
ScheduleName = Literal["cosine", "linear", "wsd", "noam", "constant"]

BUDGET_EXAMPLES = "20min, 1h30min, 90s, 1000steps or 50Mtokens"

_COUNT_SCALES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_COUNT = re.compile(r"(?P<number>\d[\d_]*(?:\.\d+)?)\s*(?P<scale>[kMB]?)\s*(?P<kind>steps?|tokens?)?")
_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)\s*d)?\s*(?:(?P<h>\d+(?:\.\d+)?)\s*h)?\s*"
    r"(?:(?P<min>\d+(?:\.\d+)?)\s*min)?\s*(?:(?P<s>\d+(?:\.\d+)?)\s*s)?"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of training: steps, tokens, or seconds of wall clock.

    Attributes:
        kind: What is counted.
        value: How many, above 0; whole for steps and tokens. k, M and B stand for 10^3, 10^6 and 10^9.
    """

    kind: BudgetKind
    value: int | float

    def __post_init__(self) -> None:
        whole = self.kind == "seconds" or float(self.value).is_integer()
        if not (math.isfinite(self.value) and self.value > 0 and whole):
            raise ValueError(f"budget ({self.value} {self.kind}) must be above 0 and whole; write {BUDGET_EXAMPLES}.")
        if float(self.value).is_integer():
            object.__setattr__(self, "value", int(self.value))

    @classmethod
    def parse(cls, text: str | int) -> "Budget":
        """Read a budget as a person writes it; a bare number counts steps.

        Args:
            text: Such as `20min`, `1h30min`, `90s`, `1000steps`, `2.5Btokens` or `1000`.

        Raises:
            ValueError: If the text is none of these.
        """
        written = " ".join(str(text).split())  # in a long run of spaces the patterns would look for very long
        if match := _COUNT.fullmatch(written):
            number = float(match["number"].replace("_", "")) * _COUNT_SCALES[match["scale"]]
            if math.isinf(number):
                raise ValueError(f"budget ({written[:20]}...) must be finite; write {BUDGET_EXAMPLES}.")
            # 2.3 * 10**9 is not whole in binary; the nearest whole number is what was meant.
            value = round(number) if math.isclose(number, round(number), rel_tol=1e-12) else number
            return cls("tokens" if (match["kind"] or "").startswith("token") else "steps", value)
        match = _DURATION.fullmatch(written)
        if match and written:
            return cls("seconds", sum(float(match[unit] or 0) * size for unit, size in _SECONDS.items()))
        raise ValueError(f"budget ({written}) must be a time, steps or tokens; write {BUDGET_EXAMPLES}.")

    def __str__(self) -> str:
        """Write the budget so that `parse` reads the same one back."""
        return _format_seconds(self.value) if self.kind == "seconds" else _format_count(int(self.value)) + self.kind


def _format_count(value: int) -> str:
    for scale in ("B", "M"):
        share = value / _COUNT_SCALES[scale]
        if share >= 1 and round(share, 3) * _COUNT_SCALES[scale] == value:
            return f"{share:.3f}".rstrip("0").rstrip(".") + scale
    return str(value)


def _format_seconds(value: float) -> str:
    # Binary fractions of a second survive a round trip only when no part is split off.
    if not float(value).is_integer():
        return f"{np.format_float_positional(value)}s"  # never with an exponent
    hours, rest = divmod(int(value), 3_600)
    minutes, seconds = divmod(rest, 60)
    return "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if number)


def progress(budget: Budget, step: float, *, tokens: float, seconds: float, opening_seconds: float = 0.0) -> float:
    """Compute the share of the budget that is done, in [0, 1].

    Steps and tokens are functions of the global step, so these shares are the same in every run. Seconds are
    measured: those before the last restart plus those since.

    Args:
        budget: The whole of it.
        step: Optimizer steps done. A caller that wants the rate of the step about to be made may add 0.5, so that
            neither the first nor the last step gets a rate of 0; and likewise half of its tokens.
        tokens: Tokens seen.
        seconds: Seconds of training, over all restarts.
        opening_seconds: Those that count for nothing, fewer than a budget in seconds has.
    """
    if budget.kind == "seconds":
        done, whole = seconds - opening_seconds, budget.value - opening_seconds
    else:
        done, whole = {"steps": step, "tokens": tokens}[budget.kind], budget.value
    return min(max(done / whole, 0.0), 1.0)


def finished(budget: Budget, step: int, *, tokens: int, seconds: float) -> bool:
    """Say whether the whole budget is used; the arguments are those of `progress`."""
    return progress(budget, step, tokens=tokens, seconds=seconds) >= 1.0


def learning_rate_factor(
    kind: ScheduleName, progress: float, *, warmup_share: float, decay_share: float, final_share: float
) -> float:
    """Compute the learning rate as a share of its peak, in [0, 1].

    Every kind first rises in a straight line from 0 to 1. Then `constant` stays; `linear` falls in a straight line;
    `cosine` falls as half a wave (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts); `wsd`
    stays and then falls within the last `decay_share` (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395) as
    1 - sqrt(x), which Hägele et al. 2024 (arXiv:2405.18392, section 3) found better than a straight line; `noam` falls
    with the inverse square root of the progress and never reaches 0 (Vaswani et al. 2017, equation 3, whose peak is
    (width x warm-up steps)^-0.5).

    Args:
        kind: The schedule's name.
        progress: Share of the budget done, in [0, 1].
        warmup_share: Share of the budget spent rising.
        decay_share: Share of the budget spent falling; only for `wsd`.
        final_share: The factor at the end of the budget; not for `constant` and `noam`.

    Raises:
        ValueError: If progress is outside [0, 1] or the kind is unknown.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress ({progress}) must be in [0, 1]; give the share of the budget that is done.")
    if progress < warmup_share:
        return progress / warmup_share
    if kind == "noam":
        return math.sqrt(warmup_share / progress) if progress else 1.0
    start = max(1.0 - decay_share, warmup_share) if kind == "wsd" else warmup_share
    fallen = (progress - start) / (1.0 - start) if start < 1.0 else 0.0
    fallen = max(fallen, 0.0)
    return final_share + (1.0 - final_share) * _remaining(kind, fallen) if kind != "constant" else 1.0


def _remaining(kind: ScheduleName, fallen: float) -> float:
    """Height between the final rate (0) and the peak (1) when the share `fallen` of the decay is done."""
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * fallen))
    if kind == "linear":
        return 1.0 - fallen
    if kind == "wsd":
        return 1.0 - math.sqrt(fallen)
    raise ValueError(f"schedule ({kind}) must be one of cosine, linear, wsd, noam, constant; choose one of these.")
