"""Recommendations from a million products: loading, memory, latency, and recall of links."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.processes import run_module
from benchmarks.report import markdown_table
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.shelf.catalogue import (
    MAX_HISTORY,
    VERSION,
    Drawn,
    draw,
    histories,
    write_catalogue,
)
from benchmarks.shelf.command import ShelfContext
from newshelf.config import Limits
from newshelf.nn.numpy_scorer import Pooling
from newshelf.serving.encode import ProductEncoder
from newshelf.serving.index import ItemIndex, load_index
from newshelf.serving.protocol import RawRequest
from newshelf.serving.recommender_predictor import RecommenderPredictor
from newshelf.serving.runtimes.base import Array, ScorerGraphs

_ITEMS = 1_000_000
_REQUESTS, _COMPARED, _SEED = 200, 40, 31
_RETRIEVE = 400
_FILTERS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "price up to 20 (half of the products)": {"price": {"max": 20}},
    "a style (17 %)": {"style": "boho"},
    "a department (2.5 %)": {"product_type": "Shop > D3"},
    "brand and colour (0.5 %)": {"brand": "Brand 7", "color": "white"},
}
_FIRST = {"product_type": "Shop > D3", "material": "oak", "style": "classic", "color": "navy"}

_P50 = "recommendation, no candidates named: p50, ms of processor time"
_P99 = "recommendation, no candidates named: p99, ms of processor time"
_SLOWEST = "recommendation under the slowest filter: p50, ms of processor time"
_FIRST_MS = "first filtered request, ms of processor time"
_LOAD = "load of index and links, s of processor time"
_PRIVATE = "memory of a worker that no other shares, MB"
_RECALL = "best 400 by links and prior: recall"


@dataclass(frozen=True)
class _Formula:
    """The scorer's graph, computed by the index's formula; an index needs one to be checked."""

    pooling: Pooling

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        history, candidates = (np.asarray(inputs[name])[0] for name in ("history", "candidates"))
        similarity = self.pooling.similarity(history, candidates)
        return {"scores": self.pooling.scores(similarity)[None]}


def open_recommender(folder: Path) -> RecommenderPredictor:
    """Load the drawn index as a worker does. Requests must name products by their ids."""
    index = load_index(folder / "index", encoder_version=VERSION)
    if index.manifest.pooling is None:
        raise ValueError("the drawn index has a scorer")
    scorer = _Formula(index.manifest.pooling)
    return RecommenderPredictor(
        cast("ProductEncoder", None),
        ScorerGraphs(scorer, scorer, MAX_HISTORY),
        index,
        model_version=VERSION,
        limits=Limits(),
        retrieve=_RETRIEVE,
    )


def measure(folder: Path, items: int) -> dict[str, Any]:
    """Measure in this process, which must be a fresh one."""
    before = _private_mb()
    with threadpool_limits(1):
        start = time.thread_time()
        predictor = open_recommender(folder)
        load_s = time.thread_time() - start
        drawn = draw(items)
        asked = list(histories(drawn, _REQUESTS, _SEED))
        # As a worker's warm-up.
        _answer(predictor, asked[0], {})
        private = _private_mb() - before - _bytes(drawn) / 1e6
        first, _ = _answer(predictor, asked[1], _FIRST)
        times = {
            name: [_answer(predictor, history, filters) for history in asked]
            for name, filters in _FILTERS.items()
        }
        return {
            "load_s": load_s,
            "private_mb": private,
            "first_ms": first,
            "ms": times,
            "recall": _recall(predictor.index, asked[:_COMPARED]),
        }


def _answer(
    predictor: RecommenderPredictor, history: NDArray[np.int64], filters: Mapping[str, Any]
) -> tuple[float, float]:
    """Return milliseconds on the processor and on the clock; the answer must be complete."""
    body = {"history": [f"NS{row:07}" for row in history], "k": 10, "filters": filters}
    row = RawRequest.unhurried(json.dumps(body).encode())
    start, busy = time.perf_counter(), time.thread_time()
    [answer] = predictor.predict([row])
    busy_ms, took_ms = (time.thread_time() - busy) * 1e3, (time.perf_counter() - start) * 1e3
    answered = json.loads(answer.body)
    if {item["source"] for item in answered["items"]} != {"model"}:
        raise AssertionError(f"{answered} where ten items of the model were expected")
    return busy_ms, took_ms


def _recall(index: ItemIndex, asked: Sequence[NDArray[np.int64]]) -> float:
    """Return the share of the best by links and prior, scored for all products, that are found."""
    links = index.links
    if links is None:
        raise ValueError("the drawn index has links")
    found = []
    for history in asked:
        sums = links.sums(history)
        everywhere = np.where(index.table.in_stock, links.everywhere(sums), -np.inf)
        least = np.partition(everywhere, -_RETRIEVE)[-_RETRIEVE]
        _, scores = links.best(sums, index.table.in_stock, _RETRIEVE)
        # By score: equal ones are interchangeable.
        found.append(np.count_nonzero(scores >= least - np.float32(1e-5)) / _RETRIEVE)
    return float(np.mean(found))


def _private_mb() -> float:
    """Return the memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    sizes = dict(line.split()[:2] for line in lines[1:])
    return (int(sizes["Private_Dirty:"]) + int(sizes["Private_Clean:"])) / 1024 - _mapped_mb()


def _mapped_mb() -> float:
    """Return what of the private memory are pages of mapped files, which others would share."""
    mapped, size = False, 0
    for line in Path("/proc/self/smaps").read_text(encoding="ascii", errors="replace").splitlines():
        words = line.split()
        if "-" in words[0] and ":" not in words[0]:
            mapped = line.endswith((".safetensors", ".faiss"))
        elif mapped and words[0] == "Private_Clean:":
            size += int(words[1])
    return size / 1024


def _bytes(drawn: Drawn) -> int:
    arrays = (drawn.kind, drawn.department, drawn.popularity, drawn.linked)
    return sum(array.nbytes for array in arrays)


def run(context: ShelfContext) -> TaskResult:
    """Draw the catalogue, unless it is there, and measure each round in a fresh process."""
    folder = context.work / f"drawn-{_ITEMS}"
    if not folder.exists():
        context.console.print(f"drawing an index of {_ITEMS:,} products …", markup=False)
        write_catalogue(folder, _ITEMS)
    rounds = [_fresh(folder) for _ in range(context.rounds)]
    # Of each round, by filter: (requests, 2).
    ms = [{name: np.array(found) for name, found in one["ms"].items()} for one in rounds]
    p50 = {name: [float(np.median(one[name][:, 0])) for one in ms] for name in _FILTERS}
    slowest = max(p50, key=lambda name: np.median(p50[name]))
    values = {
        _P50: p50["none"],
        _P99: [float(np.percentile(one["none"][:, 0], 99)) for one in ms],
        _SLOWEST: p50[slowest],
        _FIRST_MS: [one["first_ms"] for one in rounds],
        _LOAD: [one["load_s"] for one in rounds],
        _PRIVATE: [one["private_mb"] for one in rounds],
        _RECALL: [one["recall"] for one in rounds],
    }
    return TaskResult(
        task="scale",
        title="A recommendation from a million products",
        protocol=(
            f"{_ITEMS:,} drawn products in 2,000 kinds, 8,000 of them with 200 links each, with "
            f"types, brands, colours and inferred styles. {_REQUESTS} requests of 3 to 30 "
            "products of history, for 10 items, one after the other in one thread, in the worker's "
            "code from the JSON of the request to that of the answer; without TorchServe. Times "
            "are the thread's on the processor, which is what a request takes on an idle core; the "
            "table also has those by the clock, with whatever else the machine did. Each round is "
            "a fresh process; the index's files are in the page cache. Recall compares "
            f"the {_RETRIEVE} items found by links and prior with the best of all that are in "
            "stock, all of them scored."
        ),
        rows=[
            Row(name, "Newshelf", found, robust=name != _RECALL) for name, found in values.items()
        ],
        goals=[Goal(_P50, 10.0), Goal(_FIRST_MS, 50.0), Goal(_RECALL, 0.95)],
        details=markdown_table(_HEADER, "lrrrr", [*_cells(ms)]),
        percent=False,
        lower_is_better=[_P50, _P99, _SLOWEST, _FIRST_MS, _LOAD, _PRIVATE],
    )


_HEADER = ("filter", "p50 ms", "p99 ms", "p50 ms by the clock", "p99 ms by the clock")


def _cells(ms: Sequence[Mapping[str, NDArray[np.float64]]]) -> Iterator[tuple[str, ...]]:
    for name in _FILTERS:
        found = np.concatenate([one[name] for one in ms])
        points = np.percentile(found, [50, 99], axis=0)
        yield name, *(f"{value:.1f}" for value in points.T.ravel())


def _fresh(folder: Path) -> dict[str, Any]:
    printed = run_module("benchmarks.shelf.scale", str(folder), str(_ITEMS), threads=1)
    found: dict[str, Any] = json.loads(printed)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
