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
