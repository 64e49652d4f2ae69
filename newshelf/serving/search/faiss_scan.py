"""Calls of faiss that scan int8 codes, over all rows or some lists."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from newshelf.errors import WeightsError
from newshelf.serving.search.base import FloatArray, IntArray, Mask

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
