"""The recommender: 50 products of history, 500 candidates; in process and served."""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.serve.check import wait_for_answer
from benchmarks.serve.contender import Endpoint
from benchmarks.serve.context import Context
from benchmarks.serve.encoder import CLIENTS
from benchmarks.serve.errors import BenchmarkError
from benchmarks.serve.load import Request, load
from benchmarks.serve.models import Model, make_shop
from benchmarks.serve.recommender import BATCHES, CANDIDATES, CATALOGUES, HISTORY, Times
from benchmarks.serve.rounds import Measured, Turn, drain, run_rounds
from benchmarks.serve.tables import details
from benchmarks.serve.torchserve import Layout, serve_archives, write_archives
from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.evaluation.figures.lines import Line, draw_lines
from newshelf.pipeline.workspace import ROOT
from newshelf.server.keys import read_keys
from newshelf.serving.load_recommender import load_recommender_predictor
from newshelf.serving.protocol import RawRequest

__all__ = ["LAYOUTS", "run"]

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
_TOLERANCE = 2e-3
_MS_GOAL, _SPEED_GOAL, _P99_GOAL = 1.0, 1_500.0, 40.0
_ALONE = "in process, one request at a time: ms"
_SPEED = f"served, {CLIENTS} clients: requests/s"
_P99 = f"served, {CLIENTS} clients: p99, ms"


@dataclass(frozen=True)
class _Question:
    body: Path
    answer: Sequence[tuple[str, float]]
    """The items that come first and their scores, by the predictor in this process."""


def run(context: Context) -> TaskResult:
    """Time it in process (see ``benchmarks.serve.recommender``), then through TorchServe."""
    model = make_shop(context.work, context.console)
    found = _in_process(model, context.seconds / 3)
    with tempfile.TemporaryDirectory() as folder:
        questions = _questions(model, Path(folder))
        turns = [_turn(model, layout, questions, context) for layout in LAYOUTS]
        served = run_rounds(turns, context.rounds, context.console)
    figure = context.figures / "recommender.png"
    draw_lines(
        {
            "candidates, one request": _line(found["candidates"], CANDIDATES),
            "requests in a batch, 500 candidates": _line(found["batches"], BATCHES),
            "products in the index, 500 candidates": _line(found["catalogues"], CATALOGUES),
            "products in the index, none named": _line(found["whole"], CATALOGUES),
        },
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
    """``benchmarks.serve.recommender`` in a process of its own, on one thread.

    Raises:
        BenchmarkError: it failed.
    """
    command = [sys.executable, "-P", "-m", "benchmarks.serve.recommender"]
    command += [str(model.workspace.export), str(seconds)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"in process: {done.stderr.strip()[-1500:]}")
    found: dict[str, dict[str, Times]] = json.loads(done.stdout)
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


def _turn(model: Model, layout: Layout, questions: Sequence[_Question], context: Context) -> Turn:
    mar = write_archives(model, layout, "recommender")["recommender"]

    def take(measured: Measured) -> None:
        with _served(mar, context.work) as endpoint:
            bodies = [question.body for question in questions]
            wait_for_answer(endpoint, bodies[0])
            _check(endpoint, questions[:_CHECKED])
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


@contextmanager
def _served(mar: Path, work: Path) -> Iterator[Endpoint]:
    with serve_archives({"recommender": mar}, work / "servers" / "recommender") as state:
        token = read_keys(state.key_file).inference.header()
        headers = {"Content-Type": "application/json", **token}
        yield Endpoint(state.inference_url, "/predictions/recommender", state.process, headers)


def _check(endpoint: Endpoint, questions: Sequence[_Question]) -> None:
    """The same items in the same order, but for equal scores; the same scores."""
    for question in questions:
        found = _items(endpoint.ask_bytes(question.body))
        if len(found) != len(question.answer):
            raise BenchmarkError(f"{len(found)} items came, and {len(question.answer)} should")
        for (item, score), (expected, its) in zip(found, question.answer, strict=True):
            if abs(score - its) > _TOLERANCE or (item != expected and score != its):
                raise BenchmarkError(
                    f"the server recommends {item} ({score}) where the predictor in this process "
                    f"has {expected} ({its})"
                )


def _line(times: dict[int, dict[str, float]], points: Sequence[int]) -> dict[str, Line]:
    return {name: Line(points, [times[at][name] for at in points]) for name in ("p50", "p99")}


def _in_process_table(found: dict[str, dict[int, dict[str, float]]]) -> str:
    words = {
        "candidates": "candidates, one request",
        "batches": "requests in a batch, 500 candidates",
        "catalogues": "products in the index, 500 candidates",
        "whole": "products in the index, none named",
    }
    rows = [
        (title if place == 0 else "", f"{at:,}", f"{times['p50']:.2f}", f"{times['p99']:.2f}")
        for key, title in words.items()
        for place, (at, times) in enumerate(found[key].items())
    ]
    return markdown_table(("in process, over", "", "p50 ms per request", "p99 ms"), "lrrr", rows)
