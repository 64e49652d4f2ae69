"""Confidence intervals for what belongs to all cases together, such as coverage.

A bootstrap would mislead here: a resample holds 63 % of the cases, and fewer cases always
cover less. The delete-a-group jackknife leaves out little (Kott 2001)::

    variance = (B - 1)/B · Σ_b (θ_b - mean θ)²

θ_b is the statistic without the b-th of B random blocks of groups.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from newshelf.evaluation.bootstrap import LEVEL, MIN_GROUPS
from newshelf.evaluation.types import BoolArray, IntArray, Interval

__all__ = ["exposure_interval"]

_BLOCKS = 50
_Statistic = Callable[[npt.NDArray[np.float64]], float]


def exposure_interval(
    top: IntArray,
    groups: IntArray,
    candidates: BoolArray,
    statistic: _Statistic,
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval | None:
    """Interval of a statistic of how often each item was listed.

    Args:
        top: (C, K) item indices, -1 for an empty place.
        groups: (C,) numbers 0..G-1 of the cases.
        candidates: (n_items,) True where an item is ranked.
        statistic: within 0..1, of how often each of those was listed.
        level: of confidence.
        seed: of the blocks.

    Returns:
        θ ± t · standard error, cut to 0..1; None with fewer than ``MIN_GROUPS`` groups.
    """
    n_items = len(candidates)
    n_groups = int(groups.max()) + 1
    blocks = min(_BLOCKS, n_groups)
    if blocks < MIN_GROUPS:
        return None
    block_of = np.random.default_rng(seed).permutation(n_groups) % blocks
    listed = top >= 0
    rows = np.broadcast_to(block_of[groups][:, None], top.shape)[listed]
    shown = np.bincount(rows * n_items + top[listed], minlength=blocks * n_items)
    by_block = shown.reshape(blocks, n_items)[:, candidates].astype(np.float64)
    every = by_block.sum(axis=0)
    without = np.array([statistic(every - block) for block in by_block])
    error = np.sqrt((blocks - 1) / blocks * np.square(without - without.mean()).sum())
    reach = float(stats.t.ppf((1 + level) / 2, blocks - 1) * error)
    value = statistic(every)
    return max(value - reach, 0.0), min(value + reach, 1.0)
