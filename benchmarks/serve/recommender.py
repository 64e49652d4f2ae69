"""What one recommendation costs in process: over batches, candidates and catalogue size."""

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.serve.recommender_made import larger
from newshelf.errors import SetupError
from newshelf.nn.blend import content_signal
from newshelf.serving.load_recommender import load_recommender_predictor
from newshelf.serving.protocol import RawRequest
from newshelf.serving.recommender_predictor import RecommenderPredictor

__all__ = ["BATCHES", "CANDIDATES", "CATALOGUES", "HISTORY", "Times", "in_process"]

HISTORY = 50
BATCHES = (1, 8, 32)
CANDIDATES = (10, 30, 100, 300, 500, 1000)
CATALOGUES = (2_000, 20_000, 100_000)
_REQUESTS = 64
_TOLERANCE = 2e-3

Times = dict[str, float]
"""Milliseconds of one request: ``p50`` and ``p99``."""


def in_process(export: Path, seconds: float = 3.0) -> dict[str, dict[int, Times]]:
    """Measure on one thread, and check every answer that is timed against the plain formula.

    Args:
        export: the folder of one.
        seconds: of each measurement.

    Returns:
        ``batches`` (50 of history, 500 candidates; by requests in a batch), ``candidates``
        (one request; by their number), ``catalogues`` (500 candidates) and ``whole`` (none
        named; both by the number of items).

    Raises:
        SetupError: the process has more threads, the model has no scorer, or an answer is
            not what the formula gives.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SetupError("measure in a process of its own, started with OMP_NUM_THREADS=1")
    predictor = load_recommender_predictor(export)
    first = larger(predictor, CATALOGUES[0])
    found: dict[str, dict[int, Times]] = {
        "batches": {size: _measure(first, 500, size, seconds) for size in BATCHES},
        "candidates": {count: _measure(first, count, 1, seconds) for count in CANDIDATES},
        "catalogues": {},
        "whole": {},
    }
    for items in CATALOGUES:
        shop = larger(predictor, items)
        found["catalogues"][items] = _measure(shop, 500, 1, seconds)
        found["whole"][items] = _measure(shop, 0, 1, seconds)
    return found


def _measure(predictor: RecommenderPredictor, candidates: int, batch: int, seconds: float) -> Times:
    rng = random.Random(7)  # noqa: S311
    ids = predictor.index.table.id
    bodies: list[dict[str, list[str]]] = []
    for _ in range(max(_REQUESTS, batch)):
        named = {"candidates": rng.sample(ids, candidates)} if candidates else {}
        bodies.append({"history": rng.sample(ids, HISTORY), **named})
    rows = [RawRequest({"body": orjson.dumps(body)}, "application/json") for body in bodies]
    batches = [rows[start : start + batch] for start in range(0, len(rows) - batch + 1, batch)]
    for body, row in zip(bodies[:4], rows, strict=False):
        _check(predictor, body, orjson.loads(predictor.predict([row])[0].body)["items"])
    taken, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        for part in batches:
            start = time.perf_counter()
            predictor.predict(part)
            taken.append((time.perf_counter() - start) / len(part) * 1e3)
    return {"p50": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99))}


def _check(
    predictor: RecommenderPredictor, body: dict[str, list[str]], items: Sequence[dict[str, object]]
) -> None:
    """The items are those that the formula of ``newshelf.nn.blend`` ranks first.

    Raises:
        SetupError: they are not.
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
        # Which items are retrieved is the search's part; what is answered has its score.
        best = -np.inf
    if np.abs(given - scores[rows]).max() > _TOLERANCE or given.min() < best - _TOLERANCE:
        raise SetupError("an answer that was timed is not what the formula gives")


def _plain(predictor: RecommenderPredictor, history: NDArray[np.int64]) -> NDArray[np.float32]:
    """``(N,)``: every item's score by the scorer's graph and the blend's matrices."""
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
    signals = blend.links_signals(blend.linked(blend.history([history])))
    cosines = index.embeddings[np.unique(history)] @ index.embeddings.T
    content = content_signal(cosines, blend.spec.temperature)
    total: NDArray[np.float32] = blend.unpersonal(signals, blend.prior)[0]
    total += weights["siamese"] * siamese + weights["content"] * content
    return total


if __name__ == "__main__":
    print(json.dumps(in_process(Path(sys.argv[1]), float(sys.argv[2]))))
