"""Random numbers as a pure function of (seed, purpose, counter): nothing to save, nothing to replay.

Philox is a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the seed and
the purpose are its key, and what is drawn for (an epoch, a step, a row) is its counter. Only raw 64-bit words are
used, because numpy promises that their stream never changes, which it does not promise for its distributions.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a draw is for; draws for different purposes are independent."""

    ORDER = 1
    PACKING = 2
    PAIRS = 3
    LABELS = 4
    MASKS = 5
    SPANS = 6
    CUTS = 7


def random_bits(seed: int, purpose: Purpose, *, counter: tuple[int, int, int], size: int) -> NDArray[np.uint64]:
    """Draw `size` uniform 64-bit words.

    Args:
        seed: The run's seed, from 0 to 2**64 - 1.
        purpose: What the words are for.
        counter: Three numbers from 0 to 2**64 - 1 that name the draw, such as (step, epoch, row).
        size: How many words.

    Raises:
        ValueError: If the seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed ({seed}) must be from 0 to 2**64 - 1; choose a non-negative integer.")
    # The lowest word of Philox's counter is the one that runs on while numbers are drawn.
    key = np.array([seed, purpose], dtype=np.uint64)
    words = np.array([0, *counter], dtype=np.uint64)
    return np.random.Philox(key=key, counter=words).random_raw(size)


def uniforms(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn random words into uniform numbers in [0, 1), one a word."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
