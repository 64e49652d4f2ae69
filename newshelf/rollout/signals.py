"""What the variants show: coverage and diversity, compared at equal size.

More answers show more products. The larger variant is therefore thinned to the size of the
smaller one, on paper: rarefaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

__all__ = ["Shown", "effective_items", "rarefied_items", "shown"]


@dataclass(frozen=True)
class Shown:
    """What one variant shows."""

    coverage: float
    """Expected number of different products in a sample of the size compared at."""
    diversity: float
    """Effective number of products, exp(entropy)."""


def shown(items: Mapping[str, int], size: int) -> Shown:
    """Describe a variant.

    Args:
        items: how often each product was shown; not empty.
        size: products shown, at which variants are compared; at most the sum of ``items``.
    """
    counts = np.fromiter((count for count in items.values() if count), dtype=np.float64)
    return Shown(rarefied_items(counts, size), effective_items(counts))


def rarefied_items(counts: NDArray[np.float64], size: int) -> float:
    """Different products that a sample of ``size`` without replacement has on average.

    Hurlbert (1971), with N = Σ counts::

        Σ_i 1 - C(N - n_i, size) / C(N, size)
    """
    total = counts.sum()
    left = total - counts
    possible = left >= size
    log_missed = (
        gammaln(left[possible] + 1)
        - gammaln(left[possible] - size + 1)
        - gammaln(total + 1)
        + gammaln(total - size + 1)
    )
    return float(len(counts) - np.exp(log_missed).sum())


def effective_items(counts: NDArray[np.float64]) -> float:
    """exp(-Σ p·ln p), p = counts / Σ counts: Hill's number of order 1 (Hill 1973; Jost 2006).

    As many products, shown alike, would be as diverse.
    """
    p = counts / counts.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
