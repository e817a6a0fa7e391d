"""How far a measured figure may be off because other examples might have been drawn: 95 % intervals."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_NORMAL_QUANTILE = 1.959963984540054  # 97.5 %
_RESAMPLES = 1_000
_RESAMPLES_AT_ONCE = 100
_BOUNDS = (2.5, 97.5)  # percentiles


def wilson_interval(successes: float, number: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), from 0 to 1; it is sensible for few cases and shares of 1.

    Args:
        successes: From 0 to `number`.
        number: Cases, at least 1.
    """
    share, squared = successes / number, _NORMAL_QUANTILE**2
    centre = (share + squared / (2 * number)) / (1 + squared / number)
    spread = math.sqrt(share * (1 - share) / number + squared / (4 * number**2))
    half = _NORMAL_QUANTILE * spread / (1 + squared / number)
    # Rounding must not leave a share of 0 or 1 outside of its own interval.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def bootstrap_interval(
    columns: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    seed: int,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a figure that is computed from sums over examples (Efron 1979).

    Args:
        columns: What each example adds to the sums, [examples, sums].
        statistic: Computes the figure from the sums of each of several samples, [samples, sums] to [samples].
        seed: Decides the 1,000 samples, each of as many examples as there are, drawn with replacement.
    """
    generator = np.random.default_rng(seed)
    number = len(columns)
    shares = np.full(number, 1 / number)
    found = []
    for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE):
        times_drawn = generator.multinomial(number, shares, size=_RESAMPLES_AT_ONCE)
        found.append(statistic(times_drawn @ columns))
    return _percentiles(np.concatenate(found))


def stratified_bootstrap_interval(groups: Sequence[Sequence[float]], *, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of the groups' means, each group drawn from by itself.

    Args:
        groups: The examples' figures in each group, which has at least one.
        seed: Decides the 1,000 samples.
    """
    generator = np.random.default_rng(seed)
    means = np.zeros((len(groups), _RESAMPLES))
    for place, group in enumerate(groups):
        values, counts = np.unique(np.asarray(group, np.float64), return_counts=True)
        drawn = generator.multinomial(len(group), counts / len(group), size=_RESAMPLES)
        means[place] = drawn @ values / len(group)
    return _percentiles(means.mean(axis=0))


def _percentiles(samples: NDArray[np.float64]) -> tuple[float, float]:
    # A sample may lack what the figure divides by, as a class that none of its examples has.
    low, high = np.nanpercentile(samples, _BOUNDS)
    return float(low), float(high)
