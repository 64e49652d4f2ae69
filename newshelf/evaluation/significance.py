"""Confidence intervals of metrics, and a paired test of two models on the same cases.

Cases of one scene or one shopper resemble each other. Means over cases therefore have intervals
from a cluster bootstrap, which resamples whole groups of cases (Davison & Hinkley 1997, ch. 3.8;
Field & Welsh 2007). Statistics of all lists together, such as coverage, have intervals from the
delete-a-group jackknife (Kott 2001): a bootstrap resample has 63 % of the distinct cases, and
fewer cases always cover less.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray, Interval

_RESAMPLES = 1000
LEVEL = 0.95
MIN_GROUPS = 5
"""Resamples of fewer groups hardly differ, so an interval would mean nothing."""


def case_groups(cases: Sequence[Case]) -> IntArray:
    """Return (cases,) group numbers 0..G-1; cases without a group get one each."""
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
    """Return (M, G) sums over each group of (M, C) values of cases."""
    n_groups = int(groups.max()) + 1
    return np.stack([np.bincount(groups, weights=row, minlength=n_groups) for row in values])


@lru_cache(maxsize=2)
def draws(n_groups: int, resamples: int = _RESAMPLES, seed: int = 0) -> FloatArray:
    """Return (resamples, n_groups) float32: how often each group is in each resample."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
    frozen = drawn.astype(np.float32)
    # The cache shares it.
    frozen.flags.writeable = False
    return frozen


def mean_intervals(
    values: npt.NDArray[np.float64], groups: IntArray, *, seed: int = 0
) -> list[Interval] | None:
    """Return percentile intervals of means over cases, all from the same resamples.

    ``values`` (M, C) have a row per metric; ``groups`` (C,) are numbers 0..G-1. None with fewer
    than ``MIN_GROUPS`` groups.
    """
    n_groups = int(groups.max()) + 1
    if n_groups < MIN_GROUPS:
        return None
    drawn = draws(n_groups, seed=seed)
    sizes = np.bincount(groups, minlength=n_groups)
    means = group_sums(values, groups) @ drawn.T / (drawn @ sizes)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(means, tails, axis=1)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


_BLOCKS = 50
_Statistic = Callable[[npt.NDArray[np.float64]], float]


def exposure_interval(
    top: IntArray, groups: IntArray, candidates: BoolArray, statistic: _Statistic
) -> Interval | None:
    """Return the jackknife interval of a statistic (0..1) of how often each item is listed.

    ::

        variance = (B - 1)/B · Σ_b (θ_b - mean θ)²,   interval = θ ± t · standard error

    θ_b is the statistic without the b-th of B random blocks of groups. ``top`` are (C, K) item
    indices, -1 for an empty place; ``groups`` (C,) numbers 0..G-1. None with fewer than
    ``MIN_GROUPS`` groups.
    """
    n_items = len(candidates)
    n_groups = int(groups.max()) + 1
    blocks = min(_BLOCKS, n_groups)
    if blocks < MIN_GROUPS:
        return None
    block_of = np.random.default_rng(0).permutation(n_groups) % blocks
    listed = top >= 0
    rows = np.broadcast_to(block_of[groups][:, None], top.shape)[listed]
    shown = np.bincount(rows * n_items + top[listed], minlength=blocks * n_items)
    by_block = shown.reshape(blocks, n_items)[:, candidates].astype(np.float64)
    every = by_block.sum(axis=0)
    without = np.array([statistic(every - block) for block in by_block])
    error = np.sqrt((blocks - 1) / blocks * np.square(without - without.mean()).sum())
    reach = float(stats.t.ppf((1 + LEVEL) / 2, blocks - 1) * error)
    value = statistic(every)
    return max(value - reach, 0.0), min(value + reach, 1.0)


ALPHA = 0.05
_PERMUTATIONS = 10_000
_AT_ONCE = 1000
Verdict = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True)
class PairedTest:
    """Comparison of two models on one metric."""

    first: float
    second: float
    """Means over the cases, as is ``first``."""
    interval: Interval | None
    """95 % interval of ``first - second``; None with too few groups."""
    p_value: float
    cases: int
    groups: int

    @property
    def difference(self) -> float:
        """``first - second``."""
        return self.first - self.second

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on the first model at ``ALPHA``, "not told apart" for few groups."""
        if self.p_value >= ALPHA or self.groups < MIN_GROUPS:
            return "not told apart"
        return "better" if self.difference > 0 else "worse"


def paired_test(
    first: npt.NDArray[np.floating],
    second: npt.NDArray[np.floating],
    groups: IntArray,
    *,
    permutations: int = _PERMUTATIONS,
    seed: int = 0,
) -> PairedTest:
    """Return a two-sided randomisation test and a bootstrap interval of the mean difference.

    Under the null hypothesis, each group's sum of differences D_g has a random sign (Fisher 1935;
    for rankings, Smucker et al. 2007)::

        p = (1 + #{ |Σ_g ± D_g| ≥ |Σ_g D_g| }) / (1 + permutations)

    ``first`` and ``second`` (C,) are one metric of the same cases; ``groups`` (C,) are numbers
    0..G-1. The test covers the sampling of cases, not the randomness of training.
    """
    if not len(first) == len(second) == len(groups) > 0:
        raise ValueError(f"{len(first)} and {len(second)} cases with {len(groups)} groups")
    gap = (first.astype(np.float64) - second.astype(np.float64))[None, :]
    sums = group_sums(gap, groups)[0]
    generator = np.random.default_rng(seed)
    # A tolerance for the rounding of float32 metrics.
    observed = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    as_far = 0
    for start in range(0, permutations, _AT_ONCE):
        count = min(_AT_ONCE, permutations - start)
        signs = generator.integers(0, 2, size=(count, len(sums)), dtype=np.int8) * 2 - 1
        as_far += int((np.abs(signs @ sums) >= observed).sum())
    intervals = mean_intervals(gap, groups, seed=seed)
    return PairedTest(
        first=float(first.mean(dtype=np.float64)),
        second=float(second.mean(dtype=np.float64)),
        interval=intervals[0] if intervals else None,
        p_value=(1 + as_far) / (1 + permutations),
        cases=len(first),
        groups=len(sums),
    )
