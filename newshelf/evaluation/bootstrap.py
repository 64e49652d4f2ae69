"""Confidence intervals for means over cases that come in groups (cluster bootstrap).

Cases of one scene or one shopper resemble each other. Groups, not cases, are therefore
drawn anew, with all their cases (Davison & Hinkley 1997, ch. 3.8; Field & Welsh 2007).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from newshelf.evaluation.types import Case, FloatArray, IntArray, Interval

__all__ = [
    "LEVEL",
    "MIN_GROUPS",
    "_RESAMPLES",
    "case_groups",
    "draws",
    "group_sums",
    "mean_intervals",
]

_RESAMPLES = 1000
LEVEL = 0.95
MIN_GROUPS = 5
"""Of fewer groups, hardly any resample differs: an interval would only seem to be one."""


def case_groups(cases: Sequence[Case]) -> IntArray:
    """(cases,) numbers 0..G-1; cases without a group get one each."""
    named = np.unique([case.group for case in cases if case.group is not None])
    groups = np.empty(len(cases), dtype=np.int64)
    alone = len(named)
    for place, case in enumerate(cases):
        if case.group is None:
            groups[place] = alone
            alone += 1
        else:
            groups[place] = np.searchsorted(named, case.group)
    return groups


def group_sums(values: npt.NDArray[np.float64], groups: IntArray) -> npt.NDArray[np.float64]:
    """(M, C) values of the cases → (M, G) sums over each group."""
    n_groups = int(groups.max()) + 1
    return np.stack([np.bincount(groups, weights=row, minlength=n_groups) for row in values])


@lru_cache(maxsize=2)
def draws(n_groups: int, resamples: int = _RESAMPLES, seed: int = 0) -> FloatArray:
    """(resamples, n_groups) float32: how often each group is in each resample."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
    frozen = drawn.astype(np.float32)
    # Shared by all who ask for the same numbers.
    frozen.flags.writeable = False
    return frozen


def mean_intervals(
    values: npt.NDArray[np.float64], groups: IntArray, *, level: float = LEVEL, seed: int = 0
) -> list[Interval] | None:
    """Percentile intervals of the means over the cases, all from the same resamples.

    Args:
        values: (M, C) a row per metric.
        groups: (C,) numbers 0..G-1.
        level: of confidence.
        seed: of the resamples.

    Returns:
        M intervals; None with fewer than ``MIN_GROUPS`` groups.
    """
    n_groups = int(groups.max()) + 1
    if n_groups < MIN_GROUPS:
        return None
    drawn = draws(n_groups, seed=seed)
    sizes = np.bincount(groups, minlength=n_groups)
    means = group_sums(values, groups) @ drawn.T / (drawn @ sizes)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(means, tails, axis=1)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
