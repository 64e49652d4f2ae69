"""Confidence sequences of a quantile (p99 of the latencies), valid at every look.

Whether a latency exceeds the true quantile is a coin with a known side, so the sequential test
of a share tells which values the quantile may have (Howard & Ramdas 2022, "Sequential
estimation of quantiles with applications to A/B testing and best-arm identification",
arXiv:1906.09712). Of the distribution nothing is assumed, but values are taken to be
independent of each other. That has a price: an upper end needs enough values that the quantile
would hardly have stayed unseen, about 1,000 for a p99.

A sample that has grown too large is halved, and its half then grows. Each half is tested by
itself, at its own part of the level: 9/10 before the first halving, and 1/10 · 1/(h·(h+1))
after the one with number h. The parts sum up to 1, so the level holds over all of them.
"""

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from newshelf.rollout.shares import log_evidence_above, log_evidence_below

__all__ = ["level_when_halved", "lower_quantile", "upper_quantile"]

Floats = NDArray[np.float64]


def level_when_halved(alpha: float, halved: int) -> float:
    """The part of ``alpha`` for a sample that was halved that often."""
    return alpha * (0.1 / (halved * (halved + 1)) if halved else 0.9)


def lower_quantile(values: Floats, quantile: float, alpha: float) -> float:
    """At most the true quantile at every look, but for a probability of ``alpha``.

    Args:
        values: (n,) in any order; a uniform sample that grows by appending.
        quantile: between 0 and 1; 0.99 for p99.
        alpha: of this side alone.

    Returns:
        In the unit of the values; -inf while there are too few.
    """
    n, share, threshold = len(values), 1 - quantile, math.log(1 / alpha)
    # The quantile is exceeded with a probability of at most 1 - quantile. A value that is
    # exceeded so often that this is refuted lies below it. More is stronger evidence.
    usual = math.ceil(share * n)
    fewest = usual + bisect_left(
        range(usual, n + 1),
        True,
        key=lambda count: bool(log_evidence_above(count, n, share) >= threshold),
    )
    if fewest > n:
        return -math.inf
    return float(np.partition(values, n - fewest)[n - fewest])


def upper_quantile(values: Floats, quantile: float, alpha: float) -> float:
    """At least the true quantile at every look; inf while there are too few values."""
    n, share, threshold = len(values), 1 - quantile, math.log(1 / alpha)
    usual = math.floor(share * n)
    most = (
        bisect_left(
            range(usual + 1),
            True,
            key=lambda count: bool(log_evidence_below(count, n, share) < threshold),
        )
        - 1
    )
    if most < 0:
        return math.inf
    return float(np.partition(values, n - most - 1)[n - most - 1])
