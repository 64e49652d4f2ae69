"""The recommender: 50 products of history, 500 candidates; in process and served."""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.processes import run_module
from benchmarks.report import markdown_table
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.command import ServeContext
from benchmarks.serve.contender import Endpoint, wait_for_answer
from benchmarks.serve.encoder import CLIENTS
from benchmarks.serve.models import Model, make_shop
from benchmarks.serve.rounds import Measured, Turn, details, drain, run_rounds
from benchmarks.serve.torchserve import Layout, serve_model, write_archives
from benchmarks.serve.wrk import Request, load
from newshelf.errors import SetupError
from newshelf.nn.blend import Blend, content_signal
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.report.plots import Line, draw_lines
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable
from newshelf.serving.protocol import RawRequest
from newshelf.serving.recommender_predictor import RecommenderPredictor, load_recommender_predictor
from newshelf.serving.search.base import FloatArray, Search, open_search
from newshelf.serving.search.build import build_search

_LINKED_ITEMS = 8_000
"""As ``scorer.blend.linked_items``; further items have no links."""
_NOISE = 0.2
"""Length of the noise added to an embedding."""


def larger(predictor: RecommenderPredictor, items: int, seed: int = 7) -> RecommenderPredictor:
    """Return the recommender over a larger catalogue: its items repeated, with noise."""
    index, rng = predictor.index, np.random.default_rng(seed)
    original = np.arange(items) % len(index)
    embeddings = index.embeddings[original]
    noise = rng.standard_normal(embeddings.shape, dtype=np.float32)
    embeddings += noise * np.float32(_NOISE / np.sqrt(embeddings.shape[1]))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    if predictor.scorer is None:
        raise SetupError("this workspace's model has no scorer, so there is nothing to measure")
    vectors = predictor.scorer.projector.run({"embedding": embeddings})["vector"]
    columns: dict[str, list[object]] = {
        name: [index.table.column(name)[row] for row in original.tolist()] for name in INDEX_COLUMNS
    }
    columns["id"] = [f"item{row}" for row in range(items)]
    made = replace(
        index,
        manifest=index.manifest.model_copy(update={"items": items}),
        table=ItemTable.from_columns(columns),
        embeddings=embeddings,
        vectors=vectors,
        embedding_search=_searched(embeddings),
        vector_search=_searched(vectors),
        blend=None if index.blend is None else _repeated(index.blend, items, rng),
    )
    return predictor.over(made)


def _searched(matrix: FloatArray) -> Search:
    """Build the search that an index of this size has."""
    with tempfile.TemporaryDirectory() as folder:
        manifest, kept = build_search(matrix, Path(folder), "rows")
        # Mapped files remain readable after their folder is deleted.
        return open_search(matrix, Path(folder), "rows", manifest, kept)


def _repeated(blend: Blend, items: int, rng: np.random.Generator) -> Blend:
    """Repeat links within each copy of the catalogue, and neighbours across copies."""

    def copied(matrix: sparse.csr_array, rows: int, across: bool) -> sparse.csr_array:
        repeated = sparse.vstack([matrix] * -(-rows // len(blend)), format="coo")
        copies = repeated.row // len(blend)
        if across:
            copies = rng.integers(0, max(1, items // len(blend)), repeated.nnz)
        columns = repeated.col + copies * len(blend)
        kept = (repeated.row < rows) & (columns < items)
        parts = (repeated.data[kept], (repeated.row[kept], columns[kept]))
        return sparse.csr_array(parts, shape=(items, items))

    links = copied(blend.links, min(items, _LINKED_ITEMS), across=False)
    neighbours = copied(blend.neighbours, items, across=True)
    return Blend(blend.spec, links, neighbours, np.resize(blend.prior, items))


HISTORY = 50
BATCHES = (1, 8, 32)
CANDIDATES = (10, 30, 100, 300, 500, 1000)
CATALOGUES = (2_000, 20_000, 100_000)
_REQUESTS = 64
_TOLERANCE = 2e-3

_OVER = {
    "candidates": "candidates, one request",
    "batches": "requests in a batch, 500 candidates",
    "catalogues": "products in the index, 500 candidates",
    "whole": "products in the index, none named",
}
"""Key of what is measured in process, and its title."""
Times = dict[str, float]
"""``p50`` and ``p99`` of one request in ms."""


def in_process(export: Path, seconds: float = 3.0) -> dict[str, dict[int, Times]]:
    """Measure on one thread, after checking answers against the plain formula.

    Args:
        export: the folder of an export.
        seconds: duration of each measurement.

    Returns:
        ``batches`` (50 of history, 500 candidates; by requests in a batch), ``candidates``
        (one request; by their number), ``catalogues`` (500 candidates) and ``whole`` (none
        named; both by the number of items).

    Raises:
        SetupError: the process has more threads, the model has no scorer, or an answer is
            not what the formula gives.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SetupError("measure in a separate process with OMP_NUM_THREADS=1")
    predictor = load_recommender_predictor(export)
    first = larger(predictor, CATALOGUES[0])
    found: dict[str, dict[int, Times]] = {
        "batches": {size: _time(first, 500, size, seconds) for size in BATCHES},
        "candidates": {count: _time(first, count, 1, seconds) for count in CANDIDATES},
        "catalogues": {},
        "whole": {},
    }
    for items in CATALOGUES:
        shop = larger(predictor, items)
        found["catalogues"][items] = _time(shop, 500, 1, seconds)
        found["whole"][items] = _time(shop, 0, 1, seconds)
    return found


def _time(predictor: RecommenderPredictor, candidates: int, batch: int, seconds: float) -> Times:
    rng = random.Random(7)  # noqa: S311
    ids = predictor.index.table.id
    bodies: list[dict[str, list[str]]] = []
    for _ in range(max(_REQUESTS, batch)):
        named = {"candidates": rng.sample(ids, candidates)} if candidates else {}
        bodies.append({"history": rng.sample(ids, HISTORY), **named})
    rows = [RawRequest({"body": orjson.dumps(body)}, "application/json") for body in bodies]
    batches = [rows[start : start + batch] for start in range(0, len(rows) - batch + 1, batch)]
    for body, row in zip(bodies[:4], rows, strict=False):
        _check_formula(predictor, body, orjson.loads(predictor.predict([row])[0].body)["items"])
    taken, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        for part in batches:
            start = time.perf_counter()
            predictor.predict(part)
            taken.append((time.perf_counter() - start) / len(part) * 1e3)
    return {"p50": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99))}


def _check_formula(
    predictor: RecommenderPredictor, body: dict[str, list[str]], items: Sequence[dict[str, object]]
) -> None:
    """Check the items against the ranking by the formula of ``newshelf.nn.blend``.

    Raises:
        SetupError: they differ.
    """
    index = predictor.index
    history = np.array([index.table.row_of[item] for item in body["history"]])
    scores = _plain(predictor, history)
    rows = [index.table.row_of[str(item["id"])] for item in items]
    given = np.array([item["score"] for item in items])
    if "candidates" in body:
        among = np.array([index.table.row_of[item] for item in body["candidates"]])
        rest = np.setdiff1d(among[index.table.in_stock[among]], [*rows, *history])
        best = scores[rest].max(initial=-np.inf)
    else:
        # Retrieval is approximate: only the scores of the answer are checked.
        best = -np.inf
    if np.abs(given - scores[rows]).max() > _TOLERANCE or given.min() < best - _TOLERANCE:
        raise SetupError("an answer that was timed is not what the formula gives")


def _plain(predictor: RecommenderPredictor, history: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return ``(N,)`` scores of all items by the scorer's graph and the blend's matrices."""
    index, scorer = predictor.index, predictor.scorer
    if scorer is None or index.vectors is None:
        raise SetupError("this workspace's model has no scorer, so there is nothing to measure")
    read = index.vectors[history[-scorer.max_history :]]
    inputs = {
        "history": read,
        "history_mask": np.ones(len(read), bool),
        "candidates": index.vectors,
    }
    siamese: NDArray[np.float32] = scorer.scorer.run(
        {name: array[None] for name, array in inputs.items()}
    )["scores"][0]
    if (blend := index.blend) is None:
        return siamese
    weights = blend.spec.weights
    links = BlendLookup(blend)
    cosines = index.embeddings[np.unique(history)] @ index.embeddings.T
    content = content_signal(cosines, blend.spec.temperature)
    total: NDArray[np.float32] = links.everywhere(links.sums(np.unique(history)))
    total += weights["siamese"] * siamese + weights["content"] * content
    return total


LAYOUTS = (
    Layout(workers=1, threads=1, batch_size=16, delay_ms=1),
    Layout(workers=1, threads=1, batch_size=32, delay_ms=1),
    Layout(workers=2, threads=1, batch_size=8, delay_ms=1),
    Layout(workers=2, threads=1, batch_size=16, delay_ms=1),
    Layout(workers=2, threads=1, batch_size=32, delay_ms=3),
)
_NAMED = 500
_BODIES = 128
_CHECKED = 16
_SEED = 11
_SERVED_TOLERANCE = 2e-3
_MS_GOAL, _SPEED_GOAL, _P99_GOAL = 1.0, 1_500.0, 40.0
_JSON = {"Content-Type": "application/json"}
_ALONE = "in process, one request at a time: ms"
_SPEED = f"served, {CLIENTS} clients: requests/s"
_P99 = f"served, {CLIENTS} clients: p99, ms"


@dataclass(frozen=True)
class _Question:
    body: Path
    answer: Sequence[tuple[str, float]]
    """First items and scores by the predictor in this process."""


def run(context: ServeContext) -> TaskResult:
    """Measure the recommender in process, then through TorchServe."""
    model = make_shop(context.work, context.console)
    found = _in_process(model, context.seconds / 3)
    with tempfile.TemporaryDirectory() as folder:
        questions = _questions(model, Path(folder))
        turns = [_turn(model, layout, questions, context) for layout in LAYOUTS]
        served = run_rounds(turns, context.rounds, context.console)
    figure = context.figures / "recommender.png"
    draw_lines(
        {title: _lines(found[name]) for name, title in _OVER.items()},
        figure,
        xlabel="",
        ylabel="ms per request",
        log_x=True,
    )
    rows = [Row(_ALONE, "Newshelf", [found["batches"][1]["p50"]])]
    for name, one in served.items():
        rows.append(Row(_SPEED, name, one.values(CLIENTS), robust=True))
        rows.append(Row(_P99, name, one.values(CLIENTS, "p99_ms"), robust=True))
    return TaskResult(
        task="recommender",
        title="Recommender",
        protocol=(
            f"{HISTORY} ids of history and {_NAMED} candidate ids in each request, the best ten "
            f"asked for; {_BODIES} different requests in turn. In process on one thread, over a "
            f"catalogue of {CATALOGUES[0]:,} products. Served, over the drawn shop. Every answer "
            "in process is compared with the plain formula, and the servers' with those in "
            "process."
        ),
        rows=rows,
        goals=[Goal(_ALONE, _MS_GOAL), Goal(_SPEED, _SPEED_GOAL), Goal(_P99, _P99_GOAL)],
        figures={"cost over candidates, batch and catalogue": figure},
        details=f"{details(list(served.values()))}\n\n{_in_process_table(found)}",
        percent=False,
        lower_is_better=[_ALONE, _P99],
    )


def _in_process(model: Model, seconds: float) -> dict[str, dict[int, Times]]:
    """Run ``in_process`` as a process with one thread.

    Raises:
        BenchmarkError: it failed.
    """
    words = str(model.workspace.export), str(seconds)
    printed = run_module("benchmarks.serve.recommender", *words, threads=1)
    found: dict[str, dict[str, Times]] = json.loads(printed)
    return {name: {int(at): one for at, one in times.items()} for name, times in found.items()}


def _questions(model: Model, folder: Path) -> list[_Question]:
    predictor = load_recommender_predictor(model.workspace.export)
    ids, rng = predictor.index.table.id, random.Random(_SEED)  # noqa: S311
    questions = []
    for number in range(_BODIES):
        chosen = rng.sample(list(ids), HISTORY + _NAMED)
        body = orjson.dumps({"history": chosen[:HISTORY], "candidates": chosen[HISTORY:]})
        path = folder / f"{number:03d}.json"
        path.write_bytes(body)
        [answer] = predictor.predict([RawRequest({"body": body}, "application/json")])
        questions.append(_Question(path, _items(answer.body)))
    return questions


def _items(body: bytes) -> list[tuple[str, float]]:
    return [(item["id"], item["score"]) for item in json.loads(body)["items"]]


def _turn(
    model: Model, layout: Layout, questions: Sequence[_Question], context: ServeContext
) -> Turn:
    mar = write_archives(model, layout, "recommender")["recommender"]

    def take(measured: Measured) -> None:
        folder = context.work / "servers" / "recommender"
        with serve_model("recommender", mar, folder, _JSON) as endpoint:
            bodies = [question.body for question in questions]
            wait_for_answer(endpoint, bodies[0])
            _check_served(endpoint, questions[:_CHECKED])
            requests = [Request(endpoint.path, body, endpoint.headers) for body in bodies]
            least = len(endpoint.ask_bytes(bodies[0])) // 2
            for clients in (1, CLIENTS):
                load(endpoint.url, requests, clients=clients, seconds=context.warm_up_s)
                drain(endpoint, bodies)
                found = load(
                    endpoint.url,
                    requests,
                    clients=clients,
                    seconds=context.seconds,
                    least_bytes=least,
                )
                measured.add(clients, found)

    return Turn(layout.words(), layout.words(), take)


def _check_served(endpoint: Endpoint, questions: Sequence[_Question]) -> None:
    """Check that items, order (except for equal scores) and scores are the same."""
    for question in questions:
        found = _items(endpoint.ask_bytes(question.body))
        if len(found) != len(question.answer):
            raise BenchmarkError(f"{len(found)} items instead of {len(question.answer)}")
        for (item, score), (expected, its) in zip(found, question.answer, strict=True):
            if abs(score - its) > _SERVED_TOLERANCE or (item != expected and score != its):
                raise BenchmarkError(
                    f"the server recommends {item} ({score}) where the predictor in this process "
                    f"has {expected} ({its})"
                )


def _lines(times: dict[int, Times]) -> dict[str, Line]:
    return {name: Line([*times], [one[name] for one in times.values()]) for name in ("p50", "p99")}


def _in_process_table(found: dict[str, dict[int, Times]]) -> str:
    rows = [
        (title if place == 0 else "", f"{at:,}", f"{times['p50']:.2f}", f"{times['p99']:.2f}")
        for key, title in _OVER.items()
        for place, (at, times) in enumerate(found[key].items())
    ]
    return markdown_table(("in process, over", "", "p50 ms per request", "p99 ms"), "lrrr", rows)


if __name__ == "__main__":
    print(json.dumps(in_process(Path(sys.argv[1]), float(sys.argv[2]))))
