"""How much each item is asked for: what its score owes to no one's history."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["popularity_features"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

_WINDOWS_DAYS = (14, 30, 90)
_DAY_S = 86_400


def popularity_features(
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray] | None,
    neighbours: sparse.csr_array,
) -> dict[str, FloatArray]:
    """Popularity of each item, of its neighbours, its age, and whether it is new.

    With time: ``log(1 + shoppers)`` in the last 14, 30 and 90 days (a trend is their
    difference), and ``log(1 + days since it was first taken)``. Without: all of them.
    A new item has 0 everywhere, and ``new`` = 1, whose weight makes up for it;
    ``popularity_alike`` is the popularity of what it resembles.

    Args:
        sequences: item rows, one array per shopper or basket.
        timestamps: epoch seconds, parallel; None for baskets.
        neighbours: ``(N, N)``, row-stochastic.

    Returns:
        By name, ``(N,)`` float32 each.
    """
    size = neighbours.shape[0]
    items = np.concatenate([np.empty(0, dtype=np.int64), *sequences])
    owner = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
    known = np.bincount(items, minlength=size) > 0
    features: dict[str, FloatArray] = {"new": (~known).astype(np.float32)}
    if timestamps is None:
        counts = _shoppers(items, owner, size)
        features["popularity"] = np.log1p(counts)
    else:
        stamps = np.concatenate([np.empty(0, dtype=np.int64), *timestamps])
        now = int(stamps.max(initial=0))
        for days in _WINDOWS_DAYS:
            recent = stamps > now - days * _DAY_S
            counts = _shoppers(items[recent], owner[recent], size)
            features[f"popularity_{days}d"] = np.log1p(counts)
        counts = np.expm1(features["popularity_30d"])
        first = np.full(size, now)
        np.minimum.at(first, items, stamps)
        features["age"] = np.log1p((now - first) / _DAY_S).astype(np.float32)
    features["popularity_alike"] = np.log1p(neighbours @ counts).astype(np.float32)
    return features


def _shoppers(items: IntArray, owner: IntArray, size: int) -> FloatArray:
    """``(N,)``: how many different sequences have the item."""
    pairs = np.unique(np.stack([items, owner]), axis=1)
    return np.bincount(pairs[0], minlength=size).astype(np.float32)
