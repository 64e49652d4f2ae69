"""Search among ten million products on one machine, and what shards of them would take."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, thread_time

import faiss
import numpy as np

from benchmarks.report import markdown_table
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.command import ServeContext
from benchmarks.serve.models import make_model
from benchmarks.serve.search import (
    LIMIT,
    QUERIES,
    SHARES,
    FloatArray,
    IntArray,
    Made,
    Mask,
    Timed,
    grown,
    make,
    recall,
    timed,
)
from newshelf.serving.index import map_tensors
from newshelf.serving.search.base import best_rows

_SIZE = 10_000_000
_WARM_UP = 1000
_SEED = 22
_BLOCK = 262_144
_GIGABYTE = 1e9
_MS_GOAL, _RECALL_GOAL, _MEMORY_GOAL = 15.0, 0.95, 20.0
_NAME = f"top {LIMIT} of {_SIZE:,}"
_P50, _P99 = f"{_NAME}: p50, ms", f"{_NAME}: p99, ms"
_RECALL, _FILTERED = f"{_NAME}: recall", f"{_NAME}: lowest recall under a filter"
_ANONYMOUS, _TOTAL = "memory after the queries, without files, GB", "memory after the queries, GB"
_BUILT = f"{_SIZE:,}: built in, minutes"


@dataclass(frozen=True)
class Measured:
    """Answers, times and memory of the process that was asked."""

    cold: Timed
    """The first queries after its start."""
    found: Mapping[float, Timed]
    """By the share of the products that pass a filter."""
    anonymous: int
    """Bytes that are no file's."""
    total: int
    """Bytes with the pages of mapped files that it has touched."""


def run(context: ServeContext) -> TaskResult:
    """Grow vectors, build their search, time it in a process of its own, and check it.

    Vectors and search are kept in the benchmark's folder, so that another run starts from there.
    """
    model = make_model("lite0", context.work, context.catalog, context.console)
    real = map_tensors(model.workspace.export / "index" / "vectors.safetensors")["embeddings"]
    drawn = grown(real, _WARM_UP + QUERIES, np.random.default_rng(_SEED))
    context.console.print(f"growing {_SIZE:,} vectors and building their search …", markup=False)
    work = context.work / "search"
    made = make(real, _SIZE, work)
    # Another process has touched no page but those of its queries.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        measured = pool.submit(measure, np.array(real), work, drawn).result()
    masks = {share: _mask(share) for share in SHARES}
    true = nearest(made.matrix, drawn[_WARM_UP:], masks, LIMIT)
    shares = {share: recall(measured.found[share].answers, true[share]) for share in SHARES}
    found = measured.found[1.0]
    return TaskResult(
        task="search-10m",
        title="The nearest of ten million products",
        protocol=_protocol(real, made),
        rows=[
            Row(_P50, "Newshelf", [found.percentile(50)]),
            Row(_P99, "Newshelf", [found.percentile(99)]),
            Row(_RECALL, "Newshelf", [shares[1.0]]),
            Row(_FILTERED, "Newshelf", [min(shares[share] for share in SHARES[1:])]),
            Row(_TOTAL, "Newshelf", [measured.total / _GIGABYTE]),
            Row(_ANONYMOUS, "Newshelf", [measured.anonymous / _GIGABYTE]),
            Row(_BUILT, "Newshelf", [made.build_s / 60]),
        ],
        goals=[
            Goal(_P50, _MS_GOAL),
            Goal(_RECALL, _RECALL_GOAL),
            Goal(_FILTERED, _RECALL_GOAL),
            Goal(_TOTAL, _MEMORY_GOAL),
        ],
        notes=[
            f"The first {len(measured.cold.ms)} queries of a process, whose pages come from the "
            f"disk: {measured.cold.percentile(50):.1f} ms (p50), "
            f"{measured.cold.percentile(99):.1f} ms (p99)."
        ],
        details=_details(measured.found, shares),
        percent=False,
        lower_is_better=[_P50, _P99, _TOTAL, _ANONYMOUS, _BUILT],
    )


def measure(real: FloatArray, work: Path, queries: FloatArray) -> Measured:
    """Ask the search that ``make`` has built, first to warm it up, then under each filter.

    Args:
        real: what the vectors were grown from.
        work: the folder of both.
        queries: ``(_WARM_UP + Q, D)``; only the last are timed.
    """
    search = make(real, _SIZE, work).open()
    masks = {share: _mask(share) for share in SHARES}
    warm, asked = queries[:_WARM_UP], queries[_WARM_UP:]
    cold = timed(search.nearest, warm[: len(asked)], masks[1.0], LIMIT)
    for share, mask in masks.items():
        timed(search.nearest, warm if share == 1 else warm[: len(asked)], mask, LIMIT)
    found = {
        share: timed(search.nearest, asked, mask, LIMIT, before=thread_time)
        for share, mask in masks.items()
    }
    return Measured(cold, found, *_own_bytes())


def _mask(share: float) -> Mask:
    return np.random.default_rng(_SEED).random(_SIZE) < share


def _own_bytes() -> tuple[int, int]:
    """Return the anonymous and all resident bytes of this process."""
    path = Path("/proc/self/smaps_rollup")
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read ({error.strerror}): use Linux") from error
    values = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
    return values["Anonymous:"], values["Rss:"]


def nearest(
    matrix: FloatArray, queries: FloatArray, masks: Mapping[float, Mask], limit: int
) -> dict[float, list[IntArray]]:
    """Return the nearest of all rows by float32 under each filter, reading the matrix once.

    Args:
        matrix: ``(N, D)``, which need not fit into memory.
        queries: ``(Q, D)``.
        masks: ``(N,)`` each, of more than ``limit`` rows.
        limit: the number of neighbours.
    """
    heaps = {share: faiss.ResultHeap(len(queries), limit, keep_max=True) for share in masks}
    for start in range(0, len(matrix), _BLOCK):
        block = matrix[start : start + _BLOCK]
        for share, mask in masks.items():
            rows = np.flatnonzero(mask[start : start + _BLOCK])
            if not len(rows):
                continue
            passing = block if len(rows) == len(block) else block[rows]
            count, metric = min(limit, len(rows)), faiss.METRIC_INNER_PRODUCT
            products, at = faiss.knn(queries, passing, count, metric=metric)
            heaps[share].add_result(products, start + rows[at])
    return {share: list(heap.I) for share, heap in heaps.items()}


_SHARDS = (1, 2, 5, 10, 20)
_DRAWS = 20_000
_MERGES = 200


def slowest(ms: Sequence[float], shards: int, rng: np.random.Generator) -> FloatArray:
    """Return times until the last of some shards has answered, in ms, ``(_DRAWS,)``.

    Args:
        ms: times of one shard, of which each draw takes one for every shard.
        shards: their number.
        rng: a seeded generator.
    """
    drawn: FloatArray = rng.choice(np.asarray(ms, dtype=np.float32), (_DRAWS, shards)).max(axis=1)
    return drawn


def merge_ms(shards: int, rng: np.random.Generator) -> float:
    """Return the median time to find the best of what the shards have answered."""
    scores = rng.random((shards, LIMIT), dtype=np.float32)
    times = []
    for _ in range(_MERGES):
        start = perf_counter()
        together = np.concatenate(list(scores))
        best_rows(np.arange(len(together)), together, LIMIT)
        times.append((perf_counter() - start) * 1e3)
    return float(np.median(times))


def _details(found: Mapping[float, Timed], shares: Mapping[float, float]) -> str:
    header = ("products that pass", "p50 ms", "p99 ms", "p50 ms of processor time", "recall")
    filters = [
        (
            f"{share:.0%}",
            f"{one.percentile(50):.2f}",
            f"{one.percentile(99):.2f}",
            f"{np.median(np.diff(one.before)) * 1e3:.2f}",
            f"{shares[share]:.4f}",
        )
        for share, one in found.items()
    ]
    rng = np.random.default_rng(_SEED)
    rows = []
    for count in _SHARDS:
        merge = merge_ms(count, rng)
        p50, p99 = np.percentile(slowest(found[1.0].ms, count, rng), (50, 99)) + merge
        rows.append((f"{count * _SIZE:,}", f"{count}", f"{merge:.3f}", f"{p50:.1f}", f"{p99:.1f}"))
    shard_header = ("products", "shards", "merge ms", "p50 ms", "p99 ms")
    return (
        f"{markdown_table(header, 'lrrrr', filters)}\n\n"
        "Simulated, not run: the slowest of some shards, each a draw from the times above without "
        "a filter, and the measured time to merge their answers; without the network.\n\n"
        f"{markdown_table(shard_header, 'rrrrr', rows)}"
    )


def _protocol(real: FloatArray, made: Made) -> str:
    lists = made.manifest.lists if made.manifest else None
    return (
        f"{_SIZE:,} vectors of width {real.shape[1]}, grown from the embeddings of {len(real):,} "
        f"real products as in the task `search`, {made.matrix.nbytes / _GIGABYTE:.1f} GB in "
        f"float32; an inverted file of {lists} lists, built by both cores. A process of its own "
        f"maps both, answers {_WARM_UP:,} queries to warm up ({QUERIES} under each filter) and "
        f"then {QUERIES} others, one after the other in one thread; none is in the index or was "
        "used to build it. Recall is against float32 products with every row. Memory is the "
        "process's resident set after all of them: its own, and the pages of the mapped files "
        "that it has touched, which processes of a machine share."
    )
