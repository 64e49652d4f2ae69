"""Approximate search in the lists of an inverted file that are nearest to the query.

Every row lies in the list of the centroid that is nearest to it. The lists are visited in
the order of their centroids' products with the query, until they hold a *budget* of rows,
which was tuned for a recall when the file was built. Under a filter that one row in ten
passes, the nearest 100 are among the nearest 1,000 of all, so the budget is that of 1,000;
a filter that goes against the query is found out (``lists``), and more is compared. Where
fewer than one row in forty passes, all lists are scanned, which is faster than to choose among
them, and exact. So a filter never leaves fewer rows than were asked for where so many exist.

Jégou, Douze and Schmid, Product quantization for nearest neighbor search, 2011 (IVF).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray, Mask
from newshelf.serving.search.codes import Codes
from newshelf.serving.search.faiss_scan import ListScan
from newshelf.serving.search.lists import Lists
from newshelf.serving.search.plain import PlainSearch, few
from newshelf.serving.search.proof import proven_nearest
from newshelf.serving.search.select import best_rows

__all__ = ["AnnSearch"]

_COMPARED = 2
"""So many times the rows asked for are compared in float32."""
_RARE = 0.025
"""Where a filter lets no larger share pass, all lists are scanned. Of a million rows, 1 % passing:
11 ms instead of 22, and 2 %: 13 ms instead of 18; 5 %: 20 instead of 11."""
_AGAINST = 8
"""So many budgets of passing rows are compared under a filter that goes against the query."""


@dataclass(frozen=True)
class AnnSearch:
    """An inverted file over int8 codes."""

    matrix: FloatArray
    """``(N, D)``."""
    codes: Codes
    lists: Lists
    scan: ListScan
    budgets: Mapping[int, int]
    """Rows to compare, by how many are asked for."""

    def nearest(self, query: FloatArray, allowed: Mask, limit: int) -> IntArray:
        """See ``Search``; as exact as the budget, and exact where few rows pass."""
        count = int(np.count_nonzero(allowed))
        if count <= _RARE * len(allowed) or few(count, len(allowed), limit):
            return self.exact(query, allowed, limit)
        only = None if count == len(allowed) else allowed
        lists = self._lists(query, only, count, limit)
        code = self.codes.query(query)
        _, rows = self.scan.best(code.values, min(_COMPARED * limit, count), lists, only)
        rows = rows[rows >= 0]
        return best_rows(rows, self.matrix[rows] @ query, limit)

    def exact(self, query: FloatArray, allowed: Mask, limit: int, *, threads: int = 1) -> IntArray:
        """The same from all lists, proven; ``threads`` share them."""
        count = int(np.count_nonzero(allowed))
        if few(count, len(allowed), limit):
            return PlainSearch(self.matrix).nearest(query, allowed, limit)
        only = None if count == len(allowed) else allowed
        return proven_nearest(
            self.matrix,
            query,
            self.codes.query(query),
            lambda code, best: self.scan.best(code.values, best, self._all_lists, only, threads),
            limit,
            count,
        )

    def nearest_many(self, queries: FloatArray, allowed: Mask, limit: int) -> list[IntArray]:
        """See ``Search``."""
        return [self.nearest(*pair, limit) for pair in zip(queries, allowed, strict=True)]

    def budget(self, limit: int) -> int:
        """Rows to compare for ``limit``: as tuned for it or for the next larger one."""
        for tuned in sorted(self.budgets):
            if limit <= tuned:
                return max(self.budgets[tuned], _COMPARED * limit)
        largest = max(self.budgets)
        return max(ceil(self.budgets[largest] * limit / largest), _COMPARED * limit)

    def _lists(self, query: FloatArray, allowed: Mask | None, count: int, limit: int) -> IntArray:
        budget = self.budget(limit)
        if allowed is None:
            return self.lists.near(query, budget)
        rarity = len(allowed) / count
        return self.lists.near_allowed(
            query,
            allowed,
            # Never more than would make as many passing rows as there are without a filter.
            min(self.budget(ceil(limit * rarity)), ceil(budget * rarity)),
            _COMPARED * limit,
            _AGAINST * budget,
        )

    @cached_property
    def _all_lists(self) -> IntArray:
        return np.flatnonzero(self.lists.sizes)
