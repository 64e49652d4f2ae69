"""Approximate search in the lists of an inverted file whose centroids are nearest to the query.

Each row is in the list of its nearest centroid. Lists are visited by decreasing product of centroid
and query, until they hold a *budget* of rows, which is tuned for a recall when the file is built.
Under a filter that one row in ten passes, the nearest 100 are among the nearest 1,000 of all, so
the budget is that of 1,000; a filter that goes against the query is detected, and more rows are
compared. If few rows pass, all of them are. So a filter never leaves fewer rows than requested if
enough exist.

Jégou, Douze and Schmid, Product quantization for nearest neighbor search, 2011 (IVF).
"""

import ctypes
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from newshelf.errors import WeightsError
from newshelf.serving.search.base import (
    FloatArray,
    IntArray,
    Mask,
    PlainSearch,
    SearchManifest,
    Tensors,
    best_rows,
    few,
)
from newshelf.serving.search.exact import (
    Codes,
    Int8Search,
    codes_of,
    read_faiss,
    scan_lists,
)


@dataclass(frozen=True)
class Lists:
    """``L`` lists of ``N`` rows."""

    centroids: FloatArray
    """``(L, D)``, of unit length."""
    sizes: IntArray
    """``(L,)``."""
    members: NDArray[np.int32]
    """``(N,)``: the rows of the first list, then those of the second, …"""

    def near(
        self, query: FloatArray, budget: int, allowed: Mask | None, least: int, otherwise: int
    ) -> IntArray:
        """Return the lists nearest to ``(D,)`` that hold ``budget`` rows together, or all.

        Where fewer of them than ``least`` pass a filter ``(N,)``, it goes against the query: what
        passes lies far away, where the order of the lists says less about the order of their rows.
        Then it is the nearest lists with ``otherwise`` rows that pass, or all.
        """
        order = np.argsort(-(self.centroids @ query))
        visited = order[: _stop(np.cumsum(self.sizes[order]), budget)]
        if allowed is None:
            return visited
        counts = self._count(visited, allowed)
        if counts.sum() < least:
            while counts.sum() < otherwise and len(counts) < len(order):
                further = order[len(counts) : 2 * len(counts)]
                counts = np.append(counts, self._count(further, allowed))
            counts = counts[: _stop(np.cumsum(counts), otherwise)]
            visited = order[: len(counts)]
        return visited[counts > 0]

    def rows_before(self, query: FloatArray) -> IntArray:
        """``(L,)``: how many rows are compared before each list's turn comes."""
        order = np.argsort(-(self.centroids @ query))
        before = np.empty(len(order), dtype=np.int64)
        before[order] = np.cumsum(self.sizes[order]) - self.sizes[order]
        return before

    def _count(self, lists: IntArray, allowed: Mask) -> IntArray:
        """``(len(lists),)``: how many rows of each pass."""
        starts, sizes = self._starts[lists], self.sizes[lists]
        pairs = zip(starts, starts + sizes, strict=True)
        rows = np.concatenate([self.members[start:end] for start, end in pairs])
        reached = np.append(0, np.cumsum(np.take(allowed, rows), dtype=np.int64))
        counts: IntArray = np.diff(reached[np.append(0, np.cumsum(sizes))])
        return counts

    @cached_property
    def _starts(self) -> IntArray:
        return np.cumsum(self.sizes) - self.sizes


def _stop(reached: IntArray, budget: int) -> int:
    """Return the number of lists to visit; ``reached`` counts the rows up to each."""
    return min(int(np.searchsorted(reached, budget)) + 1, len(reached))


_COMPARED = 2
"""Factor of the rows asked for that are compared in float32."""
_DOUBT = 2
"""Half the difference of two products of codes, in standard deviations, that says which is larger.
``QueryCode.error`` bounds the worst directions of what rounding leaves; of random ones it takes the
share 1 / √D, at most."""
_ADVERSE_SHARE = 0.9
"""A filter goes against the query when less than this part of its share of all rows passes in
the lists that are nearest."""
_ADVERSE_FILTER_BUDGETS = 8
"""Budgets of passing rows that are compared under a filter that goes against the query."""
_MEMORY = 4 << 30
"""A matrix with more bytes is not taken to stay in memory: its rows come from the disk."""
_LIBC = ctypes.CDLL(None)


def _advise(rows: FloatArray, advice: int) -> None:
    """Tell the system about the pages of some rows that follow each other."""
    start = rows.ctypes.data
    before = start % mmap.PAGESIZE
    _LIBC.madvise(ctypes.c_void_p(start - before), ctypes.c_size_t(before + rows.nbytes), advice)


@dataclass(frozen=True)
class AnnSearch:
    """An inverted file over int8 codes."""

    matrix: FloatArray
    """``(N, D)``."""
    codes: Codes
    lists: Lists
    index: Any
    """``faiss.IndexIVFScalarQuantizer``."""
    budgets: Mapping[int, int]
    """Rows to compare, by how many are asked for."""

    def nearest(self, query: FloatArray, allowed: Mask, limit: int) -> IntArray:
        """See ``Search``; as exact as the budget, and exact where few rows pass."""
        count = int(np.count_nonzero(allowed))
        if few(count, limit):
            return PlainSearch(self.matrix).nearest(query, allowed, limit)
        only = None if count == len(allowed) else allowed
        lists = self._lists(query, only, count, limit)
        code, compared = self.codes.query(query), min(_COMPARED * limit, count)
        products, rows = scan_lists(self.index, code.values, compared, only, lists)
        rows = rows[rows >= 0]
        if len(rows) <= limit:
            return np.sort(rows)
        # Where the codes leave no doubt, float32 would change nothing.
        doubt = _DOUBT * code.error / code.step / len(query) ** 0.5
        sure = int(np.count_nonzero(products > products[limit - 1] + doubt))
        rest = rows[sure : np.count_nonzero(products >= products[limit - 1] - doubt)]
        for row in rest.tolist() if self.matrix.nbytes > _MEMORY else ():
            # All are read at once, not one after the other.
            _advise(self.matrix[row], mmap.MADV_WILLNEED)
        best = best_rows(rest, self.matrix[rest] @ query, limit - sure)
        return np.sort(np.concatenate([rows[:sure], best]))

    def exact(self, query: FloatArray, allowed: Mask, limit: int, *, threads: int = 1) -> IntArray:
        """Return the same from all lists, proven; ``threads`` share them."""
        every = np.flatnonzero(self.lists.sizes)
        scan = partial(scan_lists, self.index, lists=every, threads=threads)
        return Int8Search(self.matrix, self.codes, scan).nearest(query, allowed, limit)

    def budget(self, limit: int) -> int:
        """Rows to compare for ``limit``: as tuned for it or for the next larger one."""
        for tuned in sorted(self.budgets):
            if limit <= tuned:
                return max(self.budgets[tuned], _COMPARED * limit)
        largest = max(self.budgets)
        return max(ceil(self.budgets[largest] * limit / largest), _COMPARED * limit)

    def _lists(self, query: FloatArray, allowed: Mask | None, count: int, limit: int) -> IntArray:
        budget = self.budget(limit)
        rarity = len(self.matrix) / count
        # Never more than would make as many passing rows as there are without a filter.
        wider = min(self.budget(ceil(limit * rarity)), ceil(budget * rarity))
        least = max(_COMPARED * limit, ceil(_ADVERSE_SHARE * wider / rarity))
        return self.lists.near(query, wider, allowed, least, _ADVERSE_FILTER_BUDGETS * budget)


def open_ann(
    matrix: FloatArray, path: Path, name: str, manifest: SearchManifest, tensors: Tensors
) -> AnnSearch:
    """See ``open_search``."""
    if matrix.nbytes > _MEMORY:
        _advise(matrix, mmap.MADV_RANDOM)
    index = read_faiss(path, faiss.IndexIVFScalarQuantizer, manifest.bytes, *matrix.shape)
    lists = Lists(
        tensors[f"{name}.centroids"], tensors[f"{name}.sizes"], tensors[f"{name}.members"]
    )
    found = (index.nlist, lists.centroids.shape, lists.sizes.shape, lists.members.shape)
    count, (rows, width) = manifest.lists, matrix.shape
    held = np.array([index.invlists.list_size(at) for at in range(index.nlist)])
    if found != (count, (count, width), (count,), (rows,)) or (held != lists.sizes).any():
        raise WeightsError(f"the lists of {path} are of another index: export it again")
    codes = codes_of(matrix, manifest, tensors[f"{name}.rotation"], path)
    return AnnSearch(matrix, codes, lists, index, manifest.budgets)
