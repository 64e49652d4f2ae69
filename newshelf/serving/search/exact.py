"""Exact search in a quarter of the bytes: int8 codes first, then float32 products of what is left.

Row ``x`` and query ``q`` become whole numbers of at most 127, ``c`` and ``p``::

    R x = s c + e        R q = t p + r

with one step ``s`` for the matrix and a step ``t`` for each query. ``R`` is a random
rotation: it changes no product, and spreads every vector evenly over the dimensions, so that
the largest number, which decides the step, is small. Then::

    q · x  =  s t (p · c)  +  s (r · c)  +  R q · e
    |q · x - s t (p · c)|  ≤  ‖r‖ max ‖s c‖  +  ‖q‖ max ‖e‖     (Cauchy-Schwarz)

so a row whose product ``s t (p · c)`` is below another's by more than twice the bound cannot
be the nearer one. ``p · c`` itself is exact: it is a whole number below 2²⁴ for any width up
to 1040, and float32 holds those.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

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

_LARGEST = 127
_CODING_BLOCK_ROWS = 8192
_ROUNDING = 1e-5
"""What float32 products of unit vectors, rotated or not, may be off by."""
_SEED = 99


@dataclass(frozen=True)
class QueryCode:
    """A query as int8."""

    values: FloatArray
    """``(1, D)``: whole numbers p, at most 127 either way."""
    step: float
    """s t: a product of codes times this is about the product of the vectors."""
    error: float
    """By how much it can be wrong, for any row."""


@dataclass(frozen=True)
class Codes:
    """The coding of a matrix in int8."""

    rotation: FloatArray
    """R transposed, ``(D, D)``."""
    step: float
    """s, above 0."""
    row_norm: float
    """The largest ‖s c‖."""
    row_error: float
    """The largest ‖e‖."""

    def round(self, turned: FloatArray) -> FloatArray:
        """The numbers c of some rotated rows, ``(M, D)``, as float32 whole numbers."""
        numbers = turned / np.float32(self.step)
        np.rint(numbers, out=numbers)
        return np.clip(numbers, -_LARGEST, _LARGEST, out=numbers)

    def query(self, query: FloatArray) -> QueryCode:
        """The numbers p of a query ``(D,)``, with its bound."""
        turned = query @ self.rotation
        step = float(np.abs(turned).max()) / _LARGEST or 1.0
        values = np.rint(turned / np.float32(step)).astype(np.float32)
        rest = float(np.linalg.norm(turned - np.float32(step) * values))
        error = rest * self.row_norm + float(np.linalg.norm(turned)) * self.row_error
        return QueryCode(values[None], self.step * step, error + _ROUNDING)


def code_rows(matrix: FloatArray, add: Callable[[FloatArray], object]) -> Codes:
    """Code a matrix ``(N, D)`` float32; pass the numbers of its rows to ``add``, block by block."""
    # A rotation that is uniform among all, from a fixed seed.
    drawn = np.random.default_rng(_SEED).standard_normal((matrix.shape[1], matrix.shape[1]))
    orthogonal, triangle = np.linalg.qr(drawn)
    rotation: FloatArray = (orthogonal * np.sign(np.diag(triangle))).astype(np.float32)
    turned = (block @ rotation for block in _blocks(matrix))
    largest = max((float(max(block.max(), -block.min())) for block in turned), default=0.0)
    codes = Codes(rotation, largest / _LARGEST or 1.0, 0.0, 0.0)
    norm = error = 0.0
    for block in _blocks(matrix):
        rest = block @ rotation
        numbers = codes.round(rest)
        add(numbers)
        rounded = numbers * np.float32(codes.step)
        rest -= rounded
        norm, error = max(norm, _longest(rounded)), max(error, _longest(rest))
    return replace(codes, row_norm=norm, row_error=error)


def _longest(rows: FloatArray) -> float:
    return float(np.einsum("ij,ij->i", rows, rows).max() ** 0.5)


def _blocks(matrix: FloatArray) -> Iterator[FloatArray]:
    for start in range(0, len(matrix), _CODING_BLOCK_ROWS):
        yield matrix[start : start + _CODING_BLOCK_ROWS]


Scan = Callable[[FloatArray, int, Mask | None], tuple[FloatArray, IntArray]]
"""Products and rows of the best N, the best first, of ``(1, D)`` codes, under a filter."""

_FIRST = 512
_MORE = 4


@dataclass(frozen=True)
class Int8Search:
    """See the module for why the answer is the same as that of float32."""

    matrix: FloatArray
    """``(N, D)``."""
    codes: Codes
    scan: Scan

    def nearest(self, query: FloatArray, allowed: Mask, limit: int) -> IntArray:
        """See ``Search``."""
        among = int(np.count_nonzero(allowed))
        if few(among, limit):
            return PlainSearch(self.matrix).nearest(query, allowed, limit)
        only = None if among == len(allowed) else allowed
        code, count = self.codes.query(query), limit + _FIRST
        # The best by code are compared in float32, and more until no other can be nearer.
        while True:
            count = min(count, among)
            products, rows = self.scan(code.values, count, only)
            scores = self.matrix[rows] @ query
            if count == among:
                break
            least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
            if least > products[-1] * code.step + code.error:
                break
            count *= _MORE
        return best_rows(rows, scores, limit)


def open_int8(
    matrix: FloatArray, path: Path, name: str, manifest: SearchManifest, tensors: Tensors
) -> Int8Search:
    """See ``open_search``."""
    index = read_faiss(path, faiss.IndexScalarQuantizer, manifest.bytes, *matrix.shape)
    codes = codes_of(matrix, manifest, tensors[f"{name}.rotation"], path)
    return Int8Search(matrix, codes, partial(scan_all, index))


def codes_of(
    matrix: FloatArray, manifest: SearchManifest, rotation: FloatArray, path: Path
) -> Codes:
    """Return the coding that a manifest and its rotation ``(D, D)`` describe."""
    if rotation.shape != (matrix.shape[1],) * 2:
        raise WeightsError(f"the rotation of {path} is of another index: export it again")
    return Codes(rotation, manifest.step, manifest.row_norm, manifest.row_error)


INT8 = faiss.ScalarQuantizer.QT_8bit_direct_signed
"""Codes are the numbers themselves; products with whole numbers up to 127 are exact."""

_OVER_LISTS = 1
"""faiss's ``parallel_mode`` in which threads share the lists of one query."""


def read_faiss(path: Path, kind: type, size: int, rows: int, width: int) -> Any:
    """Map an index of faiss into memory, where all processes share it.

    Raises ``WeightsError`` if it is missing, damaged, or of another matrix.
    """
    # faiss maps a file that was cut without a look at its end.
    if path.exists() and path.stat().st_size != size:
        raise WeightsError(
            f"{path} cannot be loaded: it has {path.stat().st_size} bytes instead of {size}: "
            "export it again"
        )
    try:
        found = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise WeightsError(f"{path} cannot be loaded: {error}: export it again") from error
    if not isinstance(found, kind) or (found.ntotal, found.d) != (rows, width):
        raise WeightsError(
            f"{path} holds {type(found).__name__} of {found.ntotal} x {found.d} where "
            f"{kind.__name__} of {rows} x {width} belongs: export it again"
        )
    return found


class _Selected:
    """A selector of faiss, and the bits that it points at."""

    def __init__(self, allowed: Mask) -> None:
        self._bits = np.packbits(allowed, bitorder="little")
        self.selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))


def scan_all(
    index: Any, codes: FloatArray, count: int, allowed: Mask | None
) -> tuple[FloatArray, IntArray]:
    """Return products and rows of the best ``count`` of ``(1, D)`` codes, the best first.

    ``index`` is a ``faiss.IndexScalarQuantizer``.
    """
    # faiss shares out queries, so for one all other threads would wake up for nothing.
    faiss.omp_set_num_threads(1)
    params, kept = None, None
    if allowed is not None:
        kept = _Selected(allowed)
        # faiss takes what its stubs do not know.
        params = faiss.SearchParameters(sel=kept.selector)  # type: ignore[call-arg]
    products, rows = index.search(codes, count, params=params)
    return products[0], rows[0]


def scan_lists(
    index: Any,
    codes: FloatArray,
    count: int,
    allowed: Mask | None,
    lists: IntArray,
    threads: int = 1,
) -> tuple[FloatArray, IntArray]:
    """Return the same from some lists of a ``faiss.IndexIVFScalarQuantizer``."""
    faiss.omp_set_num_threads(threads)
    index.parallel_mode = _OVER_LISTS
    kept = None if allowed is None else _Selected(allowed)
    params = faiss.SearchParametersIVF(
        nprobe=len(lists),  # type: ignore[call-arg]
        sel=None if kept is None else kept.selector,
    )
    wanted = np.ascontiguousarray(lists, dtype=np.int64)
    unused = np.zeros(len(lists), dtype=np.float32)
    products = np.empty(count, dtype=np.float32)
    rows = np.empty(count, dtype=np.int64)
    # faiss's own wrapper of this call takes no selector.
    index.search_preassigned_c(
        1,
        faiss.swig_ptr(codes),
        count,
        faiss.swig_ptr(wanted),
        faiss.swig_ptr(unused),
        faiss.swig_ptr(products),
        faiss.swig_ptr(rows),
        False,
        params,
    )
    return products, rows
