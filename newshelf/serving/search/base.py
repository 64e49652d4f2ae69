"""What every search offers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatArray", "IntArray", "Mask", "Search"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Search(Protocol):
    """The nearest of ``N`` rows of width ``D``."""

    def nearest(self, query: FloatArray, allowed: Mask, limit: int) -> IntArray:
        """The allowed rows with the largest inner products.

        Args:
            query: ``(D,)`` float32.
            allowed: ``(N,)`` bool.
            limit: at most so many.

        Returns:
            Row numbers in increasing order; exactly ``limit`` where so many are allowed, and
            all that are allowed otherwise.
        """

    def nearest_many(self, queries: FloatArray, allowed: Mask, limit: int) -> list[IntArray]:
        """``nearest`` of several queries.

        Args:
            queries: ``(B, D)`` float32.
            allowed: ``(B, N)`` bool.
            limit: at most so many for each.
        """
