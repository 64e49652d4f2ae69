"""The interface of searches and their opening, search by float32 products, and the best scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from newshelf.errors import WeightsError
from newshelf.files import StrictModel

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
Tensors = Mapping[str, NDArray[Any]]


class Search(Protocol):
    """The nearest of ``N`` rows of width ``D``."""

    def nearest(self, query: FloatArray, allowed: Mask, limit: int) -> IntArray:
        """Return the allowed rows with the largest inner products with ``query`` ``(D,)``.

        ``allowed`` is ``(N,)``. Rows are in increasing order, exactly ``limit`` where that many are
        allowed, and all that are allowed otherwise.
        """


Positive = Annotated[int, Field(gt=0)]


class SearchManifest(StrictModel):
    """Codes of a matrix, in lists or not."""

    bytes: Positive
    step: Annotated[float, Field(gt=0)]
    row_norm: Annotated[float, Field(ge=0)]
    row_error: Annotated[float, Field(ge=0)]
    """See ``codes.Codes``."""
    lists: Positive | None = None
    """None: the search is exact."""
    budgets: Mapping[Positive, Positive] = {}
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
    """Return the ``limit`` allowed rows with the highest scores ``(N,)``, in increasing order."""
    rows = np.flatnonzero(allowed)
    return best_rows(rows, scores[rows], limit)


def best_rows(rows: IntArray, scores: FloatArray, limit: int) -> IntArray:
    """Return the ``limit`` of distinct rows ``(M,)`` with the highest scores, increasing."""
    if len(rows) <= limit:
        return np.sort(rows)
    return np.sort(rows[np.argpartition(-scores, limit)[:limit]])


_FEW_ROWS = 3072
"""Gathering so few rows costs less than passing over the codes of all others."""


def few(passing: int, limit: int) -> bool:
    """Return True when float32 products of the rows that pass beat a scan of all codes."""
    return passing <= max(limit, _FEW_ROWS)


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


def open_search(
    matrix: FloatArray, folder: Path, name: str, manifest: SearchManifest | None, tensors: Tensors
) -> Search:
    """Open the search that ``build_search`` wrote, with the manifest and tensors it returned.

    Raises ``WeightsError`` if a file is missing, damaged, or of another matrix.
    """
    if manifest is None:
        return PlainSearch(matrix)
    # faiss is loaded only by those who need it: it takes 15 MB of each worker.
    from newshelf.serving.search.ann import open_ann  # noqa: PLC0415
    from newshelf.serving.search.exact import open_int8  # noqa: PLC0415

    opener = open_int8 if manifest.lists is None else open_ann
    try:
        return opener(matrix, folder / codes_file(name), name, manifest, tensors)
    except KeyError as error:
        raise WeightsError(
            f"the search of {name} in {folder} lacks {error}: export it again"
        ) from error
