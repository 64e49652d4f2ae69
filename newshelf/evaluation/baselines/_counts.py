"""Histories as sparse matrices, and how often items were met."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from newshelf.evaluation.types import IntArray, Split

__all__ = ["incidence", "recency_weighted", "recent_counts"]

_DAY_S = 86_400


def incidence(histories: Sequence[IntArray], n_items: int) -> sparse.csr_matrix:
    """(B, n_items) float32, 1 where the history has the item, however often."""
    columns = [np.unique(history) for history in histories]
    pointers = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
    flat = np.concatenate([np.empty(0, dtype=np.int64), *columns])
    ones = np.ones(len(flat), dtype=np.float32)
    return sparse.csr_matrix((ones, flat, pointers), shape=(len(histories), n_items))


def recency_weighted(
    histories: Sequence[IntArray], n_items: int, half_life: float
) -> sparse.csr_matrix:
    """(B, n_items) float32, 2^(-age / half_life) where the history has the item.

    The age of an item is how many other items came after it for the last time.
    """
    rows = []
    for history in histories:
        items, from_end = np.unique(history[::-1], return_index=True)
        ages = np.argsort(np.argsort(from_end))
        rows.append((items, np.exp2(-ages / half_life).astype(np.float32)))
    pointers = np.concatenate([[0], np.cumsum([len(items) for items, _ in rows])])
    columns = np.concatenate([np.empty(0, dtype=np.int64), *[items for items, _ in rows]])
    values = np.concatenate([np.empty(0, dtype=np.float32), *[weights for _, weights in rows]])
    return sparse.csr_matrix((values, columns, pointers), shape=(len(histories), n_items))


def recent_counts(split: Split, days: float) -> npt.NDArray[np.float64]:
    """(n_items,) training sequences that met the item in the last ``days`` of training.

    Items of equal count are told apart by their count over all time, which adds less than 1.
    Without timestamps, all time is all there is.
    """
    total = _counts(split.train, split.n_items)
    stamps = split.train_timestamps
    if not stamps:
        return total
    start = max(int(times[-1]) for times in stamps) - days * _DAY_S
    recent = [row[times >= start] for row, times in zip(split.train, stamps, strict=True)]
    counts: npt.NDArray[np.float64] = _counts(recent, split.n_items) + total / (total.max() + 1)
    return counts


def _counts(sequences: Sequence[IntArray], n_items: int) -> npt.NDArray[np.float64]:
    counts = incidence(sequences, n_items).sum(axis=0)
    flat: npt.NDArray[np.float64] = np.asarray(counts, dtype=np.float64).ravel()
    return flat
