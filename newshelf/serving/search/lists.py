"""Which lists of an inverted file a query visits."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from newshelf.serving.search.base import FloatArray, IntArray, Mask

__all__ = ["Lists"]


_AGAINST = 0.9
"""A filter goes against the query when less than so much of its share of all rows passes in
the lists that are nearest."""


@dataclass(frozen=True)
class Lists:
    """``L`` lists of ``N`` rows."""

    centroids: FloatArray
    """``(L, D)``, of unit length."""
    sizes: IntArray
    """``(L,)``."""
    members: NDArray[np.int32]
    """``(N,)``: the rows of the first list, then those of the second, …"""

    def near(self, query: FloatArray, budget: int) -> IntArray:
        """The nearest lists that hold ``budget`` rows together, or all there are.

        Args:
            query: ``(D,)``.
            budget: at least 1.
        """
        order = self._order(query)
        return order[: _stop(np.cumsum(self.sizes[order]), budget)]

    def near_allowed(
        self, query: FloatArray, allowed: Mask, budget: int, least: int, otherwise: int
    ) -> IntArray:
        """The nearest lists under a filter.

        Those that hold ``budget`` rows, passing or not. But where fewer of them pass than
        ``least``, or than pass elsewhere, the filter goes against the query:
        what passes lies far away, where the order of the lists says less about the order of
        their rows. Then it is the nearest lists with ``otherwise`` rows that pass, or all.

        Args:
            query: ``(D,)``.
            allowed: ``(N,)``.
            budget: at least 1.
            least: of the rows that pass.
            otherwise: at least ``least``.
        """
        order = self._order(query)
        visited = order[: _stop(np.cumsum(self.sizes[order]), budget)]
        rows = np.concatenate([self._rows(at) for at in visited])
        passing = np.count_nonzero(np.take(allowed, rows))
        share = np.count_nonzero(allowed) / len(allowed)
        if passing >= max(least, _AGAINST * share * len(rows)):
            return visited
        sizes = self._count(allowed)
        visited = order[: _stop(np.cumsum(sizes[order]), otherwise)]
        return visited[sizes[visited] > 0]

    def rows_before(self, query: FloatArray) -> IntArray:
        """``(L,)``: how many rows are compared before each list's turn comes."""
        order = self._order(query)
        before = np.empty(len(order), dtype=np.int64)
        before[order] = np.cumsum(self.sizes[order]) - self.sizes[order]
        return before

    def _order(self, query: FloatArray) -> IntArray:
        return np.argsort(-(self.centroids @ query))

    def _rows(self, at: int) -> NDArray[np.int32]:
        start = self._starts[at]
        return self.members[start : start + self.sizes[at]]

    def _count(self, allowed: Mask) -> IntArray:
        """``(L,)``: how many rows of each list pass."""
        counts = np.zeros(len(self.sizes), dtype=np.int64)
        filled = np.flatnonzero(self.sizes)
        passing = np.take(allowed, self.members).view(np.uint8)
        counts[filled] = np.add.reduceat(passing, self._starts[filled], dtype=np.int64)
        return counts

    @cached_property
    def _starts(self) -> IntArray:
        """Where each list begins in ``members``."""
        return np.cumsum(self.sizes) - self.sizes


def _stop(reached: IntArray, budget: int) -> int:
    """How many lists to visit; ``reached`` counts the rows up to each."""
    return min(int(np.searchsorted(reached, budget)) + 1, len(reached))
