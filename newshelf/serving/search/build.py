"""Building of a search's files, and tuning of approximate search for a recall."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from newshelf.serving.search.ann import Lists
from newshelf.serving.search.base import FloatArray, IntArray, SearchManifest, codes_file
from newshelf.serving.search.exact import INT8, Codes, int8_blocks, measure_codes

LIMITS = (10, 100, 1000)
"""Answers of these lengths are tuned for."""
RECALL = 0.98
"""Share of the true nearest that lie in the visited lists. What is promised is 0.95; the
rest is for requests that are harder than the queries here."""

_QUERIES = 256
_NEAR = 50
_LONGEST = 5
_TUNING_SEED = 4321


def tune_budgets(matrix: FloatArray, lists: Lists) -> dict[int, int]:
    """The rows to compare, by how many are asked for.

    A true neighbour is found when its list is visited, which it is once the rows of the
    lists before it do not fill the budget. So the budget for a recall is that quantile of
    the rows before the true neighbours' lists.
    """
    queries = _queries(matrix)
    limits = sorted({min(limit, len(matrix)) for limit in LIMITS})
    list_of = np.empty(len(matrix), dtype=np.int64)
    list_of[lists.members] = np.repeat(np.arange(len(lists.sizes)), lists.sizes)
    before = [lists.rows_before(query) for query in queries]
    return {limit: _budget(_truth(matrix, queries, limit), before, list_of) for limit in limits}


def _budget(truth: IntArray, before: Sequence[IntArray], list_of: IntArray) -> int:
    needed = [rows[list_of[found]] for found, rows in zip(truth, before, strict=True)]
    # A list is visited while the budget is not reached, so one row more than come before it.
    return int(np.quantile(np.concatenate(needed), RECALL, method="higher")) + 1


def _queries(matrix: FloatArray) -> FloatArray:
    """Unit means of one to five items, as of histories: half alike, half at random."""
    rng = np.random.default_rng(_TUNING_SEED)
    rows = rng.choice(len(matrix), min(_QUERIES, len(matrix)), replace=False)
    near = _truth(matrix, matrix[rows], min(_NEAR, len(matrix)))
    means = []
    for at, (row, found) in enumerate(zip(rows, near, strict=True)):
        others = found if at % 2 else np.arange(len(matrix))
        rest = rng.choice(others, rng.integers(_LONGEST))
        means.append(matrix[[row, *rest]].mean(axis=0))
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    unit: FloatArray = np.stack(means) / np.maximum(lengths, 1e-12)
    return unit


def _truth(matrix: FloatArray, queries: FloatArray, limit: int) -> IntArray:
    """Return the rows with the largest inner products with each query, ``(B, limit)``."""
    asked = np.ascontiguousarray(queries)
    rows: IntArray = faiss.knn(asked, matrix, limit, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return np.sort(rows, axis=1)


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
    """Write ``NAME.faiss``: the codes of a matrix ``(N, D)`` float32 with rows of unit length.

    They are in lists, for approximate search, when it has more than ``ann_items`` rows; a matrix up
    to ``compressed_bytes`` is searched as it is. Returns what ``open_search`` needs in addition;
    None and nothing where the matrix is enough.
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
    means = faiss.Kmeans(
        matrix.shape[1],
        count,
        niter=_ROUNDS,
        spherical=True,
        seed=_SEED,
        # Fewer than faiss would like are no reason to print a warning.
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLES,
    )
    means.train(np.ascontiguousarray(matrix))
    return np.asarray(means.centroids, dtype=np.float32)
