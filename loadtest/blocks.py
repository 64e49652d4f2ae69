"""Two runs cut into the same blocks of seconds, and what their paired differences tell.

Latencies of neighbouring requests, and of neighbouring seconds, resemble each other: a queue
has a memory. So blocks of seconds are the cases, not requests (batch means; Law, *Simulation
Modeling and Analysis*, ch. 9.5). Two runs with the same seed meet the same arrivals in the
same block, and most of what the arrivals do cancels out in the difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from loadtest.timeline import Timeline, Totals
from newshelf.errors import SettingsError

__all__ = ["MIN_BLOCKS", "Paired", "block_seconds", "cut", "holm", "mean_difference"]

MIN_BLOCKS = 8
_MOST_BLOCKS = 30
_ANSWERS = 100
"""Of a block, so that its 99th percentile is not simply its maximum."""
_MOST_CORRELATION = 0.9
_NOTHING = 1e-12
"""What rounding may make of 0."""


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences."""

    mean: float
    low: float
    high: float
    """Interval of the mean."""
    p_value: float
    """Of a mean of zero."""
    blocks: int


def block_seconds(first: Timeline, second: Timeline) -> int:
    """Seconds of a block: at most 30 blocks, each with 100 right answers in either run.

    Raises:
        SettingsError: the runs are too short for ``MIN_BLOCKS`` of them.
    """
    seconds = math.floor(min(first.record.seconds, second.record.seconds) + 1e-6)
    slower = min(first.total().answered, second.total().answered) / max(seconds, 1)
    wanted = max(math.ceil(seconds / _MOST_BLOCKS), 1)
    filled = math.ceil(_ANSWERS / slower) if slower else wanted
    # The percentiles of fuller blocks are better, but without blocks there is no interval.
    length = max(wanted, min(filled, seconds // MIN_BLOCKS))
    if seconds // max(length, 1) < MIN_BLOCKS:
        raise SettingsError(
            f"runs of {seconds} s are too short to be compared: measure at least "
            f"{MIN_BLOCKS} s, better a minute or more"
        )
    return length


def cut(timeline: Timeline, length: int, blocks: int, kind: str | None = None) -> list[Totals]:
    """The first ``blocks`` blocks of ``length`` seconds, of one kind or all."""
    return [timeline.between(n * length, (n + 1) * length, kind) for n in range(blocks)]


def mean_difference(
    differences: NDArray[np.float64], level: float, trimmed: float = 0.0
) -> Paired | None:
    """Student's t interval of the mean of a series whose members may be correlated.

    A hiccup of the machine hits few blocks and hits them hard. With ``trimmed``, so large a
    share of the members is left out at either end, and the spread is that of the winsorised
    series (Yuen 1974)::

        t = mean of the h that are left / (s_w / ((1 - 2 trimmed) √n)), with h - 1 degrees

    The sample counts as ``n (1 - r) / (1 + r)`` independent ones, r being the correlation of
    neighbours, corrected for its bias in short series (von Storch & Zwiers, *Statistical
    Analysis in Climate Research*, ch. 6.6; Kendall 1954).

    Args:
        differences: (blocks,) one per block, in their order.
        level: of confidence, such as 0.99.
        trimmed: share at either end, below 0.5.

    Returns:
        None with fewer than ``MIN_BLOCKS``.
    """
    count = len(differences)
    if count < MIN_BLOCKS:
        return None
    cut_off = int(trimmed * count)
    order = np.sort(differences)
    mean = float(order[cut_off : count - cut_off].mean())
    kept = np.clip(differences, order[cut_off], order[count - 1 - cut_off])
    spread = float(kept.std(ddof=1)) * count / (count - 2 * cut_off)
    if spread <= _NOTHING * max(abs(mean), 1.0):
        return Paired(mean, mean, mean, float(abs(mean) <= _NOTHING), count)
    ratio = _correlation(kept)
    share = (1 - ratio) / (1 + ratio)
    freedom = max((count - 2 * cut_off) * share - 1, 1.0)
    error = spread / math.sqrt(max(count * share, 2.0))
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Paired(mean, mean - reach, mean + reach, p_value, count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for there being several, in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def _correlation(values: NDArray[np.float64]) -> float:
    """Of neighbours; between 0 and 0.9."""
    centred = values - values.mean()
    count = len(values)
    raw = float((centred[1:] * centred[:-1]).sum() / np.square(centred).sum())
    # Kendall: the estimate is (1 + 4 r) / n too small.
    return min(max((raw * count + 1) / (count - 4), 0.0), _MOST_CORRELATION)
