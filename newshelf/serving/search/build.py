"""Building of a search's files, and tuning of approximate search for a recall."""

from math import isqrt
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from newshelf.serving.search.ann import Lists
from newshelf.serving.search.base import FloatArray, IntArray, SearchManifest, Tensors, codes_file
from newshelf.serving.search.exact import INT8, Codes, code_rows

LIMITS = (10, 100, 1000)
"""Answers of these lengths are tuned for."""
RECALL = 0.98
"""Share of the true nearest that lie in the visited lists. What is promised is 0.95; the
rest is for requests that are harder than the queries here."""

_QUERIES = 256
_NEAR = 50
_LONGEST = 5
_TUNING_SEED = 4321


def tune_budgets(
    matrix: FloatArray, lists: Lists, assigned: IntArray, queries: FloatArray
) -> dict[int, int]:
    """The rows to compare, by how many are asked for; ``assigned`` is the list of each row.

    A true neighbour is found when its list is visited, which it is once the rows of the
    lists before it do not fill the budget. So the budget for a recall is that quantile of
    the rows before the true neighbours' lists.
    """
    before = np.stack([lists.rows_before(query) for query in queries])
    limits = sorted({min(limit, len(matrix)) for limit in LIMITS})
    truth = assigned[_nearest(matrix, queries, limits[-1])]
    needed = np.take_along_axis(before, truth, axis=1)
    quantiles = (np.quantile(needed[:, :limit], RECALL, method="higher") for limit in limits)
    # A list is visited while the budget is not reached, so one row more than come before it.
    return {limit: int(most) + 1 for limit, most in zip(limits, quantiles, strict=True)}


def _queries(sample: FloatArray) -> FloatArray:
    """Unit means of one to five items, as of histories: half alike, half at random."""
    rng = np.random.default_rng(_TUNING_SEED)
    rows = rng.choice(len(sample), min(_QUERIES, len(sample)), replace=False)
    near = _nearest(sample, sample[rows], min(_NEAR, len(sample)))
    means = []
    for at, (row, found) in enumerate(zip(rows, near, strict=True)):
        others = found if at % 2 else np.arange(len(sample))
        rest = rng.choice(others, rng.integers(_LONGEST))
        means.append(sample[[row, *rest]].mean(axis=0))
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    unit: FloatArray = np.stack(means) / np.maximum(lengths, 1e-12)
    return unit


def _nearest(matrix: FloatArray, queries: FloatArray, limit: int) -> IntArray:
    """Return the rows with the largest inner products with each query, ``(B, limit)``, in order."""
    asked = np.ascontiguousarray(queries)
    return faiss.knn(asked, matrix, limit, metric=faiss.METRIC_INNER_PRODUCT)[1]


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
_CANDIDATES = 1024
"""Centroids that a row is compared with."""
_BLOCK_ROWS = 131_072


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
    path = folder / codes_file(name)
    if not many:
        codes = _write_flat(matrix, path)
        return _manifest(path, codes), {f"{name}.rotation": codes.rotation}
    count = int(_LISTS_PER_ROOT * len(matrix) ** 0.5)
    rows = np.random.default_rng(_SEED).choice(
        len(matrix), min(_SAMPLES * count, len(matrix)), replace=False, shuffle=False
    )
    # In order, for a matrix that is read from a disk.
    sample = matrix[np.sort(rows)]
    centroids, queries = _centroids(sample, count), _queries(sample)
    del sample
    assigned = _assign(matrix, centroids)
    sizes = np.bincount(assigned, minlength=count).astype(np.int64)
    lists = Lists(centroids, sizes, np.argsort(assigned, kind="stable").astype(np.int32))
    codes = _write_lists(matrix, assigned, sizes, path)
    budgets = tune_budgets(matrix, lists, assigned, queries)
    return _manifest(path, codes, lists=count, budgets=budgets), {
        f"{name}.rotation": codes.rotation,
        f"{name}.centroids": lists.centroids,
        f"{name}.sizes": lists.sizes,
        f"{name}.members": lists.members,
    }


def _manifest(path: Path, codes: Codes, **lists: Any) -> SearchManifest:
    return SearchManifest(
        bytes=path.stat().st_size,
        step=codes.step,
        row_norm=codes.row_norm,
        row_error=codes.row_error,
        **lists,
    )


def _write_flat(matrix: FloatArray, path: Path) -> Codes:
    index = faiss.IndexScalarQuantizer(matrix.shape[1], INT8, faiss.METRIC_INNER_PRODUCT)
    # These codes need no training, but faiss asks.
    index.is_trained = True
    codes = code_rows(matrix, index.add)
    faiss.write_index(index, str(path))
    return codes


def _write_lists(matrix: FloatArray, assigned: IntArray, sizes: IntArray, path: Path) -> Codes:
    width = matrix.shape[1]
    # What is compared with the centroids are the vectors, not their codes, so faiss's own
    # assignment and its own choice of lists are passed by.
    index: Any = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, len(sizes), INT8, faiss.METRIC_INNER_PRODUCT, False
    )
    index.is_trained = True
    for at, size in enumerate(sizes.tolist()):
        # Room for exactly its rows: lists that grow take up to twice the memory.
        index.invlists.resize(at, size)
        index.invlists.resize(at, 0)

    def add(numbers: FloatArray) -> None:
        at = assigned[index.ntotal : index.ntotal + len(numbers)]
        index.add_core(len(numbers), faiss.swig_ptr(numbers), None, faiss.swig_ptr(at))

    codes = code_rows(matrix, add)
    faiss.write_index(index, str(path))
    return codes


def _centroids(sample: FloatArray, count: int) -> FloatArray:
    """``(count, D)`` by k-means in two levels: of all rows, then within each of √count groups."""
    members = _grouped(sample, _k_means(sample, isqrt(count)))
    ends = np.cumsum([len(at) for at in members])
    shares = np.diff(ends * count // len(sample), prepend=0).tolist()
    parts = (_k_means(sample[at], some) for at, some in zip(members, shares, strict=True) if some)
    return np.concatenate(list(parts))


def _k_means(rows: FloatArray, count: int) -> FloatArray:
    """``(count, D)`` by spherical k-means."""
    # Fewer rows than faiss would like are no reason to print a warning.
    means = faiss.Kmeans(
        rows.shape[1], count, niter=_ROUNDS, spherical=True, seed=_SEED, min_points_per_centroid=1
    )
    means.train(rows)
    return np.asarray(means.centroids, dtype=np.float32)


def _grouped(rows: FloatArray, centres: FloatArray) -> list[IntArray]:
    """Return the rows that are nearest to each centre."""
    group = _nearest(centres, rows, 1)[:, 0]
    ends = np.bincount(group, minlength=len(centres)).cumsum()
    return np.split(np.argsort(group, kind="stable"), ends[:-1])


def _assign(matrix: FloatArray, centroids: FloatArray) -> IntArray:
    """``(N,)``: the nearest of those centroids that are near the nearest centre of a group."""
    groups = _k_means(centroids, isqrt(len(centroids)))
    near = _nearest(centroids, groups, min(_CANDIDATES, len(centroids)))
    assigned = np.empty(len(matrix), dtype=np.int64)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        for at, candidates in zip(_grouped(block, groups), near, strict=True):
            best = (block[at] @ centroids[candidates].T).argmax(axis=1)
            assigned[start + at] = candidates[best]
    return assigned
