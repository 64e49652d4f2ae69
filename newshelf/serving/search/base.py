"""The interface of searches, exact search by float32 products, and selection of the best scores."""

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

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
            limit: maximum number of rows.

        Returns:
            Row numbers in increasing order; exactly ``limit`` where that many are allowed, and
            all that are allowed otherwise.
        """

    def nearest_many(self, queries: FloatArray, allowed: Mask, limit: int) -> list[IntArray]:
        """``nearest`` of several queries.

        Args:
            queries: ``(B, D)`` float32.
            allowed: ``(B, N)`` bool.
            limit: maximum number for each.
        """


Positive = Annotated[int, Field(gt=0)]


class SearchManifest(BaseModel):
    """Codes of a matrix, in lists or not."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bytes: Positive
    """Of the file of the codes."""
    step: Annotated[float, Field(gt=0)]
    row_norm: Annotated[float, Field(ge=0)]
    row_error: Annotated[float, Field(ge=0)]
    """See ``codes.Codes``."""
    lists: Positive | None = None
    """None: the search is exact."""
    budgets: dict[Positive, Positive] = {}
    """Rows that an approximate search compares, by how many are asked for."""

    @model_validator(mode="after")
    def _lists_have_budgets(self) -> "SearchManifest":
        if (self.lists is None) != (not self.budgets):
            raise ValueError("lists and budgets come together")
        return self


def codes_file(name: str) -> str:
    """The file of the codes of a matrix."""
    return f"{name}.faiss"


def top_rows(scores: FloatArray, allowed: Mask, limit: int) -> IntArray:
    """The allowed rows with the highest scores, at most ``limit``, in increasing order.

    Args:
        scores: ``(N,)`` float32.
        allowed: ``(N,)`` bool.
        limit: maximum number of rows.
    """
    rows = np.flatnonzero(allowed)
    return best_rows(rows, scores[rows], limit)


def best_rows(rows: IntArray, scores: FloatArray, limit: int) -> IntArray:
    """The rows with the highest scores, at most ``limit``, in increasing order.

    Args:
        rows: ``(M,)``, without repetition.
        scores: ``(M,)``, of each of them.
        limit: maximum number of rows.
    """
    if len(rows) <= limit:
        return np.sort(rows)
    return np.sort(rows[np.argpartition(-scores, limit)[:limit]])


_BLOCK_ROWS = 8192
"""Rows of one matrix product: long enough to run at the processor's speed, short enough for
its products with a hundred queries to stay in the cache."""


_SLACK = 8
"""A query's candidates are cut to ``limit`` when they exceed it by this factor."""


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
        limit: maximum number for each.
        allowed: ``(B, N)`` bool; None allows all.

    Returns:
        For each query its row numbers in increasing order.
    """
    found = [
        _Best(max(limit, 1), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        for _ in queries
    ]
    for start in range(0, len(matrix), _BLOCK_ROWS):
        scores = queries @ matrix[start : start + _BLOCK_ROWS].T
        for row, best in enumerate(found):
            good = scores[row] >= best.least
            if allowed is not None:
                good &= allowed[row, start : start + _BLOCK_ROWS]
            at = np.flatnonzero(good)
            best.add(start + at, scores[row, at])
    return [best_rows(best.rows, best.scores, limit) for best in found]


MANY = 16
"""From this number of queries on, a matrix product is faster than as many products with vectors."""


_FEW_ROWS = 3072


_FEW_SHARE = 0.01
"""Gathering so few rows costs less than passing over the codes of all others."""


def few(passing: int, rows: int, limit: int) -> bool:
    """Return True when float32 products of the rows that pass beat a scan of all codes.

    Args:
        passing: allowed rows.
        rows: of the matrix.
        limit: the number asked for.
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
