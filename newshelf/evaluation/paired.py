"""Whether two models really differ on the same cases."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from newshelf.evaluation.bootstrap import MIN_GROUPS, group_sums, mean_intervals
from newshelf.evaluation.types import IntArray, Interval

__all__ = ["ALPHA", "PairedTest", "Verdict", "paired_test"]

ALPHA = 0.05
_PERMUTATIONS = 10_000
_AT_ONCE = 1000
Verdict = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True)
class PairedTest:
    """The first model against the second, on one metric."""

    first: float
    second: float
    """Means over the cases."""
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
        """What can be said at ``ALPHA``; too few groups never tell two models apart."""
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
    """Two-sided randomisation test and bootstrap interval of the mean difference.

    Were the models alike, each group's sum of differences D_g could as well have the other
    sign (Fisher 1935; for rankings, Smucker et al. 2007)::

        p = (1 + #{ |Σ_g ± D_g| ≥ |Σ_g D_g| }) / (1 + permutations)

    It says whether another sample of cases would tell the two apart, not whether another
    training of them would.

    Args:
        first: (C,) a metric per case.
        second: (C,) the same of the other model, same cases in the same order.
        groups: (C,) numbers 0..G-1; cases of one group change sign together.
        permutations: random changes of sign.
        seed: of them, and of the interval.

    Raises:
        ValueError: the arrays do not have the same length, or are empty.
    """
    if not len(first) == len(second) == len(groups) > 0:
        raise ValueError(f"{len(first)} and {len(second)} cases with {len(groups)} groups")
    gap = (first.astype(np.float64) - second.astype(np.float64))[None, :]
    sums = group_sums(gap, groups)[0]
    generator = np.random.default_rng(seed)
    # Sums of float32 metrics: what differs by rounding alone is as far out.
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
