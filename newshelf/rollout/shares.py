"""Sequential tests of a share (errors, empty answers): exact for independent requests, and
valid at every look.

Against "the share is at most s₀" we bet on every larger share alike (Robbins' mixture;
Howard, Ramdas, McAuliffe & Sekhon 2021, arXiv:1810.08240, sec. 3, with a uniform prior cut at
s₀). After k of n::

    M = 1/(1 - s₀) · ∫_{s₀}^1 θ^k (1-θ)^(n-k) dθ  /  ( s₀^k (1-s₀)^(n-k) )

While the share is at most s₀, M is a nonnegative supermartingale that starts at 1, so the
probability that it *ever* reaches 1/α is at most α (Ville 1939). Nothing is assumed to be
normal, so an error rate near 0 is tested as well as any other. What is assumed: that each
request has it with the same probability or less, whatever came before. Failures in bursts, such
as an outage of minutes, look like more evidence than they are.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincc, betaln, xlog1py, xlogy

__all__ = ["log_evidence_above", "log_evidence_below", "lower_bound", "upper_bound"]

Floats = NDArray[np.float64]


def log_evidence_above(k: ArrayLike, n: ArrayLike, share: ArrayLike) -> Floats:
    """Ln M against "the true share is at most ``share``"; above ln(1/α) it is refuted.

    Args:
        k: how many had it, any shape.
        n: of how many.
        share: s₀, between 0 and 1, both excluded.
    """
    k, n, share = (np.asarray(each, dtype=np.float64) for each in (k, n, share))
    missed = n - k
    with np.errstate(divide="ignore"):
        # 0 where the data lie far below: no evidence at all.
        log_mass = np.log(betaincc(k + 1, missed + 1, share))
    found: Floats = (
        log_mass
        + betaln(k + 1, missed + 1)
        - np.log1p(-share)
        - xlogy(k, share)
        - xlog1py(missed, -share)
    )
    return found


def log_evidence_below(k: ArrayLike, n: ArrayLike, share: ArrayLike) -> Floats:
    """Ln M against "the true share is at least ``share``"."""
    return log_evidence_above(np.subtract(n, k), n, np.subtract(1.0, share))


def lower_bound(k: int, n: int, alpha: float) -> float:
    """Below the true share at every look, but for a probability of ``alpha``."""
    if k == 0:
        return 0.0
    threshold = math.log(1 / alpha)

    def over(share: float) -> float:
        return float(log_evidence_above(k, n, share)) - threshold

    # From the estimate downwards the evidence grows without end. With k = n it need not start
    # below the threshold, but the bound then lies below 1 all the same.
    top = min(k / n, 1 - 1e-12)
    if over(top) >= 0:
        return top
    bottom = top
    while over(bottom) < 0:
        bottom /= 2
    bound: float = brentq(over, bottom, top, xtol=1e-12, rtol=1e-9)
    return bound


def upper_bound(k: int, n: int, alpha: float) -> float:
    """Above the true share at every look, but for a probability of ``alpha``."""
    return 1 - lower_bound(n - k, n, alpha)
