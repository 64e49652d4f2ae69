"""Float32 products with the matrix itself."""

from dataclasses import dataclass

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray, Mask
from newshelf.serving.search.blocks import top_products
from newshelf.serving.search.select import best_rows

__all__ = ["PlainSearch"]

MANY = 16
"""From so many queries on, a matrix product is faster than as many products with vectors."""


@dataclass(frozen=True)
class PlainSearch:
    """Exact, and needs nothing but the matrix."""

    matrix: FloatArray
    """``(N, D)``."""

    def nearest(self, query: FloatArray, allowed: Mask, limit: int) -> IntArray:
        """See ``Search``."""
        rows = np.flatnonzero(allowed)
        if len(rows) <= limit:
            return rows
        # A product with the whole matrix beats a gather of half its rows.
        if len(rows) * 2 > len(self.matrix):
            return best_rows(rows, (self.matrix @ query)[rows], limit)
        return best_rows(rows, self.matrix[rows] @ query, limit)

    def nearest_many(self, queries: FloatArray, allowed: Mask, limit: int) -> list[IntArray]:
        """See ``Search``."""
        if len(queries) >= MANY:
            return top_products(self.matrix, queries, limit, allowed)
        return [self.nearest(*pair, limit) for pair in zip(queries, allowed, strict=True)]
