"""Writing what a search needs beside its matrix."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from newshelf.serving.search.base import FloatArray, IntArray
from newshelf.serving.search.codes import Codes, int8_blocks, measure_codes
from newshelf.serving.search.faiss_scan import INT8
from newshelf.serving.search.lists import Lists
from newshelf.serving.search.manifest import SearchManifest, codes_file
from newshelf.serving.search.tune import tune_budgets

__all__ = ["ANN_ITEMS", "COMPRESSED_BYTES", "build_search"]

ANN_ITEMS = 100_000
"""With more rows, the search is approximate."""
COMPRESSED_BYTES = 12 << 20
"""A smaller matrix fits the processor's cache as it is: codes would make nothing faster. With one
thread and width 512, 6,000 rows take 0.5 ms as they are and 0.8 ms by their codes, 10,000 rows
2.1 and 1.0 ms."""

_LISTS_PER_ROOT = 4
"""Lists per √N: visiting a list's centroid costs as much as comparing one of its rows, and
faiss's authors advise 4 √N to 16 √N."""
_SAMPLES = 40
"""Rows per list that k-means looks at; faiss asks for at least 39."""
_ROUNDS = 8
_SEED = 1234

Tensors = dict[str, NDArray[np.generic]]


def build_search(
    matrix: FloatArray,
    folder: Path,
    name: str,
    *,
    ann_items: int = ANN_ITEMS,
    compressed_bytes: int = COMPRESSED_BYTES,
) -> tuple[SearchManifest | None, Tensors]:
    """Write the codes of a matrix, in lists when it has more than ``ann_items`` rows.

    Args:
        matrix: ``(N, D)`` float32 with rows of unit length.
        folder: where ``NAME.faiss`` is written.
        name: the matrix's.
        ann_items: with more rows, the search is approximate.
        compressed_bytes: a matrix of at most so many bytes is searched as it is.

    Returns:
        What ``open_search`` needs besides; None and nothing where the matrix is enough.
    """
    many = len(matrix) > ann_items
    if not many and matrix.nbytes <= compressed_bytes:
        return None, {}
    codes = measure_codes(matrix)
    path = folder / codes_file(name)
    kept: Tensors = {f"{name}.rotation": codes.rotation}
    if not many:
        _write_flat(matrix, codes, path)
        return _manifest(path, codes), kept
    lists = _write_lists(matrix, codes, path)
    kept |= {
        f"{name}.centroids": lists.centroids,
        f"{name}.sizes": lists.sizes,
        f"{name}.members": lists.members,
    }
    budgets = tune_budgets(matrix, lists)
    return _manifest(path, codes, lists=len(lists.sizes), budgets=budgets), kept


def _manifest(path: Path, codes: Codes, **lists: Any) -> SearchManifest:
    return SearchManifest(
        bytes=path.stat().st_size,
        step=codes.step,
        row_norm=codes.row_norm,
        row_error=codes.row_error,
        **lists,
    )


def _write_flat(matrix: FloatArray, codes: Codes, path: Path) -> None:
    index = faiss.IndexScalarQuantizer(matrix.shape[1], INT8, faiss.METRIC_INNER_PRODUCT)
    # These codes need no training, but faiss asks.
    index.is_trained = True
    for _, block in int8_blocks(matrix, codes):
        index.add(block)
    faiss.write_index(index, str(path))


def _write_lists(matrix: FloatArray, codes: Codes, path: Path) -> Lists:
    width = matrix.shape[1]
    centroids = _centroids(matrix, int(_LISTS_PER_ROOT * len(matrix) ** 0.5))
    nearest = faiss.IndexFlatIP(width)
    nearest.add(centroids)
    # What is compared with the centroids are the vectors, not their codes, so faiss's own
    # assignment and its own choice of lists are passed by.
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, len(centroids), INT8, faiss.METRIC_INNER_PRODUCT, False
    )
    index.is_trained = True
    assigned = np.empty(len(matrix), dtype=np.int64)
    for rows, block in int8_blocks(matrix, codes):
        at: IntArray = nearest.assign(np.ascontiguousarray(matrix[rows]), 1)[:, 0].copy()
        assigned[rows] = at
        index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(at))
    faiss.write_index(index, str(path))
    return Lists(
        centroids,
        np.bincount(assigned, minlength=len(centroids)).astype(np.int64),
        np.argsort(assigned, kind="stable").astype(np.int32),
    )


def _centroids(matrix: FloatArray, count: int) -> FloatArray:
    """``(count, D)`` by spherical k-means on a part of the rows."""
    sample = _sample(len(matrix), count * _SAMPLES)
    means = faiss.Kmeans(
        matrix.shape[1],
        count,
        niter=_ROUNDS,
        spherical=True,
        seed=_SEED,
        # Fewer than faiss would like are no reason to print a warning.
        min_points_per_centroid=1,
    )
    means.train(np.ascontiguousarray(matrix[sample]))
    return np.asarray(means.centroids, dtype=np.float32)


def _sample(rows: int, count: int) -> IntArray:
    if count >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, count, replace=False))
