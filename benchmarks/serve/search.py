"""Search among a million products: exact, against the memory's limit, and approximate."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

from benchmarks.report import markdown_table
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.serve.command import ServeContext
from benchmarks.serve.models import make_model
from newshelf.files import directory_aside, read_json, write_json
from newshelf.report.plots import Line, draw_lines
from newshelf.serving.index import map_tensors
from newshelf.serving.search.ann import AnnSearch
from newshelf.serving.search.base import Search, SearchManifest, open_search
from newshelf.serving.search.build import build_search

FloatArray = NDArray[np.float32]

_NEAR = 20
_NOISE = 0.5
"""Length of the noise for vectors of length 1."""
_BLOCK = 50_000


def grown(real: FloatArray, rows: int, rng: np.random.Generator) -> FloatArray:
    """Return vectors between similar real ones, with noise.

    ::

        x = a u + (1 - a) v + noise        then of unit length

    ``u`` is a real product, drawn at random, ``v`` one of its 20 nearest, ``a`` uniform, and
    the noise Gaussian with the covariance of the real vectors, so that dimensions that tell
    nothing apart stay so.

    Args:
        real: ``(R, D)`` float32, of unit length.
        rows: the number of vectors.
        rng: a seeded generator.
    """
    similarity = real @ real.T
    near = np.argpartition(-similarity, _NEAR, axis=1)[:, :_NEAR]
    left = rng.integers(len(real), size=rows)
    right = near[left, rng.integers(_NEAR, size=rows)]
    share = rng.random((rows, 1), dtype=np.float32)
    # Noise with the covariance of the real vectors.
    spread = np.linalg.cholesky(np.cov(real.T) + 1e-9 * np.eye(real.shape[1])).astype(np.float32)
    noise = rng.standard_normal((rows, real.shape[1]), dtype=np.float32) @ spread.T
    noise *= _NOISE / np.sqrt((noise**2).sum(axis=1, keepdims=True))
    made = share * real[left] + (1 - share) * real[right] + noise
    unit: FloatArray = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


def write_grown(real: FloatArray, rows: int, path: Path, seed: int) -> FloatArray:
    """Write ``grown`` vectors to a file in blocks, unless it exists, and map it.

    Each block has its own seed, so a run that was interrupted continues after its last whole one.
    """
    width = real.shape[1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        with aside.open("ab") as file:
            whole = file.tell() // (_BLOCK * width * 4) * _BLOCK
            file.truncate(whole * width * 4)
            for start in range(whole, rows, _BLOCK):
                rng = np.random.default_rng([seed, start])
                file.write(grown(real, min(_BLOCK, rows - start), rng).data)
        aside.rename(path)
    return np.asarray(np.memmap(path, dtype=np.float32, mode="r", shape=(rows, width)))


_GROWN_SEED = 20
_NAME = "embeddings"


@dataclass(frozen=True)
class Made:
    """Vectors, and the search that an index of this size has."""

    matrix: FloatArray
    folder: Path
    manifest: SearchManifest | None
    build_s: float
    """Seconds of the build."""

    def open(self) -> Search:
        """Open the search as a worker does."""
        kept = {} if self.manifest is None else map_tensors(self.folder / "search.safetensors")
        return open_search(self.matrix, self.folder, _NAME, self.manifest, kept)


def make(real: FloatArray, rows: int, work: Path) -> Made:
    """Return ``rows`` grown vectors and their search; build them if they are missing.

    Args:
        real: ``(R, D)`` float32, the source.
        rows: the number of vectors.
        work: a folder; it takes 2.6 GB for a million of width 512.
    """
    source = hashlib.sha256(real.tobytes()).hexdigest()[:8]
    matrix = write_grown(real, rows, work / f"{source}-{rows}.f32", _GROWN_SEED)
    folder = work / f"{source}-{rows}"
    if not folder.exists():
        with directory_aside(folder) as aside:
            start = time.perf_counter()
            manifest, kept = build_search(matrix, aside, _NAME)
            took = time.perf_counter() - start
            if kept:
                save_file(dict(kept), aside / "search.safetensors")
            found = None if manifest is None else manifest.model_dump(mode="json")
            write_json(aside / "made.json", {"search": found, "build_s": took})
    stored = read_json(folder / "made.json")
    search = stored["search"]
    manifest = None if search is None else SearchManifest.model_validate(search)
    return Made(matrix, folder, manifest, float(stored["build_s"]))


def codes_path(made: Made) -> Path:
    """Return the file that an exact search reads from end to end."""
    return made.folder / f"{_NAME}.faiss"


IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
Ask = Callable[[FloatArray, Mask, int], IntArray]


@dataclass(frozen=True)
class Timed:
    """Answers to queries and their times."""

    answers: Sequence[IntArray]
    ms: Sequence[float]
    before: Sequence[float] = ()
    """Measurements taken before each of them."""

    def percentile(self, share: float) -> float:
        """Return a percentile in ms."""
        return float(np.percentile(self.ms, share))


def timed(
    ask: Ask,
    queries: FloatArray,
    allowed: Mask,
    limit: int,
    before: Callable[[], float] | None = None,
) -> Timed:
    """Time one query after the other, after a warm-up with the first.

    NumPy's products take one thread, as in a worker (``newshelf.server.torchserve``): a second
    one waits for the next product by spinning, on the core that a scan would use.

    Args:
        ask: a search.
        queries: ``(Q, D)``.
        allowed: ``(N,)``.
        limit: the number of neighbours.
        before: called before each query, outside its time.
    """
    answers, times, others = [], [], []
    with threadpool_limits(1, user_api="blas"):
        ask(queries[0], allowed, limit)
        for query in queries:
            if before is not None:
                others.append(before())
            start = time.perf_counter()
            answers.append(ask(query, allowed, limit))
            times.append((time.perf_counter() - start) * 1e3)
    return Timed(answers, times, others)


def truth(matrix: FloatArray, queries: FloatArray, allowed: Mask, limit: int) -> list[IntArray]:
    """Return the nearest of all products by float32."""
    rows = np.flatnonzero(allowed)
    metric = faiss.METRIC_INNER_PRODUCT
    _, found = faiss.knn(queries, matrix[rows], min(limit, len(rows)), metric=metric)
    return [rows[one] for one in found]


def recall(answers: Sequence[IntArray], true: Sequence[IntArray]) -> float:
    """Return the share of the true nearest that were found, over all queries.

    Raises:
        AssertionError: an answer is longer or shorter than the truth, or repeats a row.
    """
    found = 0
    for answer, rows in zip(answers, true, strict=True):
        if len(set(answer.tolist())) != len(rows) or len(answer) != len(rows):
            raise AssertionError(f"{len(answer)} rows were answered where {len(rows)} exist")
        found += len(np.intersect1d(answer, rows))
    return found / sum(len(rows) for rows in true)


@contextmanager
def streaming(path: Path) -> Iterator[Callable[[], float]]:
    """Yield a function that reads a mapped file once: a lower bound of any search in it.

    Each of one or two threads takes the bitwise "or" of its share as 64-bit words. A call
    returns the milliseconds of the faster number of threads. Mapping the file and starting
    the threads count for nothing.
    """
    words = np.asarray(
        np.memmap(path, dtype=np.uint64, mode="r", shape=(path.stat().st_size // 8,))
    )

    def read(threads: int) -> float:
        start = time.perf_counter()
        list(pool.map(np.bitwise_or.reduce, np.array_split(words, threads)))
        return (time.perf_counter() - start) * 1e3

    with ThreadPoolExecutor(2) as pool:
        read(2)
        yield lambda: min(read(1), read(2))


_SIZES = (10_000, 100_000, 1_000_000)
LIMIT = 100
_THREADS = 2
"""Threads of an exact search; an approximate one uses one."""
SHARES = (1.0, 0.5, 0.1, 0.01)
QUERIES = 200
_EXACT_QUERIES = 20
_SEED = 21
_MS_GOAL, _RECALL_GOAL, _LIMIT_GOAL = 5.0, 0.95, 1.5
_EXACT = "exact, top 100 of 1,000,000: time over that of reading the bytes"
_ANN = "approximate, top 100 of 1,000,000: p50, ms"
_ANN_P99 = "approximate, top 100 of 1,000,000: p99, ms"
_RECALL = "approximate, top 100 of 1,000,000: recall"


def run(context: ServeContext) -> TaskResult:
    """Grow vectors from an encoder's embeddings, build searches, time and check them."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    real = map_tensors(model.workspace.export / "index" / "vectors.safetensors")["embeddings"]
    queries = grown(real, QUERIES, np.random.default_rng(_SEED))
    context.console.print(
        f"growing {_SIZES[-1]:,} vectors and building their search …", markup=False
    )
    made = [make(real, size, context.work / "search") for size in _SIZES]
    largest = made[-1]
    ratios, exact_cells = _exact(largest, queries[:_EXACT_QUERIES], context.rounds)
    filtered = {share: _ann(largest, queries, share) for share in SHARES}
    found, found_share = filtered[1.0]
    curve = [_curve_point(one, queries) for one in made]
    figure = context.figures / "search.png"
    draw_lines(
        {"": {"p50": Line(_SIZES, [one.percentile(50) for one in curve])}},
        figure,
        xlabel="products",
        ylabel="ms",
        log_x=True,
    )
    return TaskResult(
        task="search",
        title="The nearest of a million products",
        protocol=_protocol(real, largest),
        rows=[
            Row(_EXACT, "Newshelf", ratios, robust=True),
            Row(_ANN, "Newshelf", [found.percentile(50)]),
            Row(_ANN_P99, "Newshelf", [found.percentile(99)]),
            Row(_RECALL, "Newshelf", [found_share]),
        ],
        goals=[
            Goal(_EXACT, _LIMIT_GOAL),
            Goal(_ANN, _MS_GOAL),
            Goal(_ANN_P99, _MS_GOAL),
            Goal(_RECALL, _RECALL_GOAL),
        ],
        notes=[exact_cells],
        figures={"time over products": figure},
        details=_details(filtered, made, curve),
        percent=False,
        lower_is_better=[_EXACT, _ANN, _ANN_P99],
    )


def _exact(made: Made, queries: FloatArray, rounds: int) -> tuple[list[float], str]:
    """Return the ratio of each round and a note; check every answer against float32."""
    search = _opened(made)
    ask = partial(search.exact, threads=_THREADS)
    allowed = np.ones(len(made.matrix), dtype=np.bool_)
    true = truth(made.matrix, queries, allowed, LIMIT)
    ratios, times, limits = [], [], []
    with streaming(codes_path(made)) as read:
        for _ in range(rounds):
            # In turns, so that other use of the memory disturbs both alike.
            found = timed(ask, queries, allowed, LIMIT, before=read)
            _require_equal(made.matrix, queries, found, true)
            limits.append(float(np.median(found.before)))
            times.append(found.percentile(50))
            ratios.append(times[-1] / limits[-1])
    gigabytes = codes_path(made).stat().st_size / 1e9
    note = (
        f"Exact: {np.median(times):.1f} ms where reading the {gigabytes:.2f} GB of int8 codes "
        f"takes {np.median(limits):.1f} ms ({gigabytes / np.median(limits) * 1e3:.1f} GB/s); "
        f"all {len(queries)} answers of each round are those of float32 products with every row."
    )
    return ratios, note


def _require_equal(
    matrix: FloatArray, queries: FloatArray, found: Timed, true: list[IntArray]
) -> None:
    for query, answer, rows in zip(queries, found.answers, true, strict=True):
        # By score: equally near rows are interchangeable.
        given, best = (np.sort(matrix[which] @ query) for which in (answer, rows))
        np.testing.assert_allclose(given, best, atol=1e-6, rtol=0)


def _ann(made: Made, queries: FloatArray, share: float) -> tuple[Timed, float]:
    """Return times and recall if ``share`` of the products pass a filter."""
    search = _opened(made)
    rng = np.random.default_rng(_SEED)
    allowed = rng.random(len(made.matrix)) < share
    found = timed(search.nearest, queries, allowed, LIMIT)
    return found, recall(found.answers, truth(made.matrix, queries, allowed, LIMIT))


def _curve_point(made: Made, queries: FloatArray) -> Timed:
    allowed = np.ones(len(made.matrix), dtype=np.bool_)
    search = made.open()
    found = timed(search.nearest, queries, allowed, LIMIT)
    if recall(found.answers, truth(made.matrix, queries, allowed, LIMIT)) < _RECALL_GOAL:
        raise AssertionError(f"{len(made.matrix)} products: the answers are wrong")
    return found


def _opened(made: Made) -> AnnSearch:
    search = made.open()
    if not isinstance(search, AnnSearch):
        raise TypeError(f"{len(made.matrix)} rows are not searched approximately")
    return search


def _details(
    filtered: Mapping[float, tuple[Timed, float]], made: list[Made], curve: list[Timed]
) -> str:
    header = ("products that pass", "p50 ms", "p99 ms", "recall")
    some = [(f"{share:.0%}", *_cells(one)) for share, one in filtered.items()]
    sizes = [
        (
            f"{len(one.matrix):,}",
            type(one.open()).__name__,
            f"{time.percentile(50):.2f}",
            f"{time.percentile(99):.2f}",
            f"{one.build_s:.1f}",
        )
        for one, time in zip(made, curve, strict=True)
    ]
    sizes_header = ("products", "search", "p50 ms", "p99 ms", "built in s")
    return (
        f"{markdown_table(header, 'lrrr', some)}\n\n{markdown_table(sizes_header, 'rlrrr', sizes)}"
    )


def _cells(one: tuple[Timed, float]) -> Iterator[str]:
    found, share = one
    yield from (f"{found.percentile(50):.2f}", f"{found.percentile(99):.2f}", f"{share:.4f}")


def _protocol(real: FloatArray, made: Made) -> str:
    manifest = made.manifest
    lists = manifest.lists if manifest else None
    return (
        f"{_SIZES[-1]:,} vectors of width {real.shape[1]}, grown from the embeddings of "
        f"{len(real):,} real products: each lies between one and one of its 20 nearest, with "
        "noise of half its length and the catalogue's covariance. "
        f"{QUERIES} queries from the same distribution, none of them in the index, asked one "
        f"after the other for their nearest {LIMIT}; exact by {_THREADS} threads, approximate by "
        "one, NumPy's products by one. The limit is the time in which one or two threads (the "
        "faster counts) read the same file once, measured in turn with the searches; medians of "
        "both. Approximate: an inverted file of "
        f"{lists} lists, whose number of rows to compare was tuned when it was built, on other "
        "queries; recall is against float32 products with every row."
    )
