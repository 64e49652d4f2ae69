"""Float32 products with the matrix itself."""

from dataclasses import dataclass

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray, Mask
from newshelf.serving.search.blocks import top_products
from newshelf.serving.search.select import best_rows

__all__ = ["PlainSearch", "few"]

MANY = 16
"""From so many queries on, a matrix product is faster than as many products with vectors."""


_FEW_ROWS = 3072
_FEW_SHARE = 0.01
"""Gathering so few rows costs less than passing over the codes of all others."""


def few(passing: int, rows: int, limit: int) -> bool:
    """Whether float32 products of the rows that pass beat a scan of all codes.

    Args:
        passing: allowed rows.
        rows: of the matrix.
        limit: so many are asked for.
    """
    return passing <= max(limit, _FEW_ROWS, _FEW_SHARE * rows)


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
