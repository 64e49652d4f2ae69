"""Two-sample statistics of drift: how far apart two samples are, and how likely by chance.

The size does not grow with the samples: a shift is reported if it is large enough to matter, and
too large for chance.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from newshelf.evaluation.types import BoolArray, FloatArray, IntArray

Floats = npt.NDArray[np.float64]
_PERMUTATIONS, _AT_ONCE = 2000, 250
_SMOOTHING = 0.5
"""Added to each count, so that an empty bin has a finite logarithm."""


class Shift(NamedTuple):
    """Distance between two samples."""

    size: float
    p_value: float


def mmd(first: FloatArray, second: FloatArray, seed: int = 0, most: int = 500) -> Shift:
    """Return the unbiased squared maximum mean discrepancy, with a permutation test.

    ::

        MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 · mean_{i,j} k(x_i, y_j)
        k(a, b) = exp(-|a - b|² / median |a - b|²)

    ``first`` (N, D) and ``second`` (M, D) have two rows or more, of which ``most`` are drawn.
    (Gretton et al. 2012: A kernel two-sample test.)
    """
    generator = np.random.default_rng(seed)
    first, second = (one[generator.permutation(len(one))[:most]] for one in (first, second))
    apart = pdist(np.concatenate([first, second]).astype(np.float64), "sqeuclidean")
    kernel = squareform(np.exp(-apart / max(float(np.median(apart)), 1e-12)))
    in_first = np.arange(len(kernel))[:, None] < len(first)
    size = float(_mmd(kernel, in_first)[0])
    as_far = 0
    for _ in range(_PERMUTATIONS // _AT_ONCE):
        drawn = generator.permuted(np.tile(in_first, _AT_ONCE), axis=0)
        as_far += int((_mmd(kernel, drawn) >= size - 1e-12).sum())
    return Shift(size, (1 + as_far) / (1 + _PERMUTATIONS))


def _mmd(kernel: Floats, in_first: BoolArray) -> Floats:
    """Return (P,) MMD² of P divisions (N + M, P) of the rows of a kernel without diagonal."""
    one = in_first.astype(np.float64)
    n = one.sum(axis=0)
    m = len(one) - n
    from_one = kernel @ one
    within = (one * from_one).sum(axis=0)
    across = from_one.sum(axis=0) - within
    rest = kernel.sum() - within - 2 * across
    found: Floats = within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m)
    return found


def psi(before: IntArray, now: IntArray, draws: tuple[int, int] | None = None) -> Shift:
    """Return the population stability index of two histograms (B,), and its p-value.

    ::

        PSI = Σ_b (q_b - p_b) · ln(q_b / p_b),   PSI / (1/N + 1/M) ~ χ²(B - 1) without a shift

    ``draws`` are the independent draws behind them, N and M; None takes their counts.
    (Yurdakul 2018: Statistical properties of the population stability index.)
    """
    kept = before + now > 0
    p, q = ((one[kept] + _SMOOTHING) / (one + _SMOOTHING)[kept].sum() for one in (before, now))
    size = float(((q - p) * np.log(q / p)).sum())
    n, m = draws or (before.sum(), now.sum())
    # One bin holds everything: nothing can shift.
    p_value = stats.chi2.sf(size / (1 / n + 1 / m), len(p) - 1) if len(p) > 1 else 1.0
    return Shift(size, float(p_value))


def calibration_error(
    before: tuple[Floats, BoolArray], now: tuple[Floats, BoolArray], bins: int = 5
) -> Shift:
    """Return the expected calibration error relative to the mean rate, and its p-value.

    Both are scores and clicks (shown,). A score predicts the click rate that it had before, by
    bins of equal count; the error is measured now::

        ECE = Σ_b n_b / n · |clicks_b / n_b - rate_b|,   size = ECE / mean rate before
    """
    edges = np.unique(np.quantile(before[0], np.linspace(0, 1, bins + 1)[1:-1]))
    counts = np.array([*_rates(edges, *before), *_rates(edges, *now)])
    old_shown, old_clicks, shown, clicks = counts[:, (counts[[0, 2]] > 0).all(axis=0)]
    gap = clicks / shown - old_clicks / old_shown
    pooled = (clicks + old_clicks) / (shown + old_shown)
    variance = np.maximum(pooled * (1 - pooled) * (1 / shown + 1 / old_shown), 1e-12)
    error = float(shown @ np.abs(gap) / shown.sum())
    p_value = float(stats.chi2.sf((gap**2 / variance).sum(), len(gap)))
    return Shift(error / float(old_clicks.sum() / old_shown.sum()), p_value)


def _rates(edges: Floats, scores: Floats, clicked: BoolArray) -> tuple[IntArray, IntArray]:
    """Return (bins,) numbers of shown and of clicked products."""
    at, bins = np.searchsorted(edges, scores, side="right"), len(edges) + 1
    return np.bincount(at, minlength=bins), np.bincount(at[clicked], minlength=bins)
