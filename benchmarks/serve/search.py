"""The nearest of a million products: exact beside the memory's limit, and approximate."""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from benchmarks.serve.context import Context
from benchmarks.serve.models import make_model
from benchmarks.serve.search_data import FloatArray, grown
from benchmarks.serve.search_made import Made, codes_path, make
from benchmarks.serve.search_measure import IntArray, Timed, recall, streaming, timed, truth
from benchmarks.transfer.report import markdown_table
from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.evaluation.figures.lines import Line, draw_lines
from newshelf.serving.mapped import map_tensors
from newshelf.serving.search.ann import AnnSearch

__all__ = ["run"]

_SIZES = (10_000, 100_000, 1_000_000)
_LIMIT = 100
_THREADS = 2
"""Of an exact search. An approximate one is one thread's work."""
_SHARES = (1.0, 0.5, 0.1, 0.01)
_QUERIES = 200
_EXACT_QUERIES = 20
_SEED = 21
_MS_GOAL, _RECALL_GOAL, _LIMIT_GOAL = 5.0, 0.95, 1.5
_EXACT = "exact, top 100 of 1,000,000: time over that of reading the bytes"
_ANN = "approximate, top 100 of 1,000,000: p50, ms"
_ANN_P99 = "approximate, top 100 of 1,000,000: p99, ms"
_RECALL = "approximate, top 100 of 1,000,000: recall"


def run(context: Context) -> TaskResult:
    """Grow vectors from an encoder's embeddings, build searches, time and check them."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    real = map_tensors(model.workspace.export / "index" / "vectors.safetensors")["embeddings"]
    queries = grown(real, _QUERIES, np.random.default_rng(_SEED))
    context.console.print(
        f"growing {_SIZES[-1]:,} vectors and building their search …", markup=False
    )
    made = [make(real, size, context.work / "search") for size in _SIZES]
    largest = made[-1]
    ratios, exact_cells = _exact(largest, queries[:_EXACT_QUERIES], context.rounds)
    filtered = {share: _ann(largest, queries, share) for share in _SHARES}
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
    """The ratio of each round; every answer is compared with that of float32."""
    search = _opened(made)
    ask = partial(search.exact, threads=_THREADS)
    allowed = np.ones(len(made.matrix), dtype=np.bool_)
    true = truth(made.matrix, queries, allowed, _LIMIT)
    ratios, times, limits = [], [], []
    with streaming(codes_path(made)) as read:
        for _ in range(rounds):
            # In turn, so that both meet the same of whatever else uses the memory.
            found = timed(ask, queries, allowed, _LIMIT, before=read)
            _require_equal(made.matrix, queries, found, true)
            limits.append(float(np.median(found.before)))
            times.append(found.percentile(50))
            ratios.append(times[-1] / limits[-1])
    gigabytes = codes_path(made).stat().st_size / 1e9
    told = (
        f"Exact: {np.median(times):.1f} ms where reading the {gigabytes:.2f} GB of int8 codes "
        f"takes {np.median(limits):.1f} ms ({gigabytes / np.median(limits) * 1e3:.1f} GB/s); "
        f"all {len(queries)} answers of each round are those of float32 products with every row."
    )
    return ratios, told


def _require_equal(
    matrix: FloatArray, queries: FloatArray, found: Timed, true: list[IntArray]
) -> None:
    for query, answer, rows in zip(queries, found.answers, true, strict=True):
        # By score: rows that are equally near may stand for each other.
        given, best = (np.sort(matrix[which] @ query) for which in (answer, rows))
        np.testing.assert_allclose(given, best, atol=1e-6, rtol=0)


def _ann(made: Made, queries: FloatArray, share: float) -> tuple[Timed, float]:
    """Times and recall where ``share`` of the products pass a filter."""
    search = _opened(made)
    rng = np.random.default_rng(_SEED)
    allowed = rng.random(len(made.matrix)) < share
    found = timed(search.nearest, queries, allowed, _LIMIT)
    return found, recall(found.answers, truth(made.matrix, queries, allowed, _LIMIT))


def _curve_point(made: Made, queries: FloatArray) -> Timed:
    allowed = np.ones(len(made.matrix), dtype=np.bool_)
    search = made.open()
    found = timed(search.nearest, queries, allowed, _LIMIT)
    if recall(found.answers, truth(made.matrix, queries, allowed, _LIMIT)) < _RECALL_GOAL:
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
        f"{_QUERIES} queries from the same distribution, none of them in the index, asked one "
        f"after the other for their nearest {_LIMIT}; exact by {_THREADS} threads, approximate by "
        "one, NumPy's products by one. The limit is the time in which one or two threads (the "
        "faster counts) read the same file once, measured in turn with the searches; medians of "
        "both. Approximate: an inverted file of "
        f"{lists} lists, whose number of rows to compare was tuned when it was built, on other "
        "queries; recall is against float32 products with every row."
    )
