"""Many queries against a matrix, block by block: one pass over memory for all of them."""

from dataclasses import dataclass

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray, Mask
from newshelf.serving.search.select import best_rows

__all__ = ["top_products"]

_BLOCK = 8192
"""Rows of one matrix product: long enough to run at the processor's speed, short enough for
its products with a hundred queries to stay in the cache."""
_SLACK = 8
"""A query's candidates are cut to ``limit`` when there are so many times more."""


@dataclass
class _Best:
    """The best rows of one query so far."""

    limit: int
    rows: IntArray
    scores: FloatArray
    least: float = -np.inf
    """What a further row must reach."""

    def add(self, rows: IntArray, scores: FloatArray) -> None:
        """Take the rows along; forget what has fallen out when there are too many."""
        self.rows = np.concatenate([self.rows, rows])
        self.scores = np.concatenate([self.scores, scores])
        if len(self.rows) > _SLACK * self.limit:
            self.cut()

    def cut(self) -> None:
        """Keep the best ``limit``."""
        if len(self.rows) > self.limit > 0:
            kept = np.argpartition(-self.scores, self.limit - 1)[: self.limit]
            self.rows, self.scores = self.rows[kept], self.scores[kept]
            self.least = float(self.scores.min())


def top_products(
    matrix: FloatArray, queries: FloatArray, limit: int, allowed: Mask | None = None
) -> list[IntArray]:
    """The rows with the largest inner products with each query; exact.

    Args:
        matrix: ``(N, D)`` float32.
        queries: ``(B, D)`` float32.
        limit: at most so many for each.
        allowed: ``(B, N)`` bool; None allows all.

    Returns:
        For each query its row numbers in increasing order.
    """
    found = [
        _Best(max(limit, 1), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        for _ in queries
    ]
    for start in range(0, len(matrix), _BLOCK):
        scores = queries @ matrix[start : start + _BLOCK].T
        for row, best in enumerate(found):
            good = scores[row] >= best.least
            if allowed is not None:
                good &= allowed[row, start : start + _BLOCK]
            at = np.flatnonzero(good)
            best.add(start + at, scores[row, at])
    return [best_rows(best.rows, best.scores, limit) for best in found]
