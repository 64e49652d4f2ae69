"""The highest of a few or of many scores."""

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray, Mask

__all__ = ["best_rows", "top_rows"]


def top_rows(scores: FloatArray, allowed: Mask, limit: int) -> IntArray:
    """The allowed rows with the highest scores, at most ``limit``, in increasing order.

    Args:
        scores: ``(N,)`` float32.
        allowed: ``(N,)`` bool.
        limit: at most so many.
    """
    rows = np.flatnonzero(allowed)
    return best_rows(rows, scores[rows], limit)


def best_rows(rows: IntArray, scores: FloatArray, limit: int) -> IntArray:
    """The rows with the highest scores, at most ``limit``, in increasing order.

    Args:
        rows: ``(M,)``, without repetition.
        scores: ``(M,)``, of each of them.
        limit: at most so many.
    """
    if len(rows) <= limit:
        return np.sort(rows)
    return np.sort(rows[np.argpartition(-scores, limit)[:limit]])
