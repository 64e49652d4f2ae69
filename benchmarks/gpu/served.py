"""TorchServe on the device, compared with calls in process and with FastAPI."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.gpu.command import GpuContext
from benchmarks.gpu.inprocess import best_rates, measure_rates
from benchmarks.gpu.models import GpuModel
from benchmarks.gpu.pictures import jpegs
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.contender import Contender, Endpoint, check_answers, wait_for_answer
from benchmarks.serve.peer import Peer, PeerLayout, ServedModel
from benchmarks.serve.torchserve import Newshelf
from loadtest.requests import Rendered
from loadtest.tuning.load import ClosedLoopPlan, run_load
from newshelf.serving.runtimes.base import Device

_SENT = 64
_CLIENTS_EACH = 32
_WARM_UP_S = 2.0
_START_S = 300.0
_LOOPED, _PEERED = "requests/s, compared with in process", "requests/s, compared with FastAPI"
_LONE = "one client: p50 compared with a call in process, ms"
_LOOPED_GOAL, _PEERED_GOAL, _LONE_MS = 0.8, 2.0, 3.0


@dataclass(frozen=True)
class Load:
    """Result of one closed load."""

    per_second: float
    p50_ms: float
    p99_ms: float


def load(endpoint: Endpoint, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Send ``bodies`` in turn from ``clients`` connections of several processes.

    Raises:
        BenchmarkError: an answer was not 200.
        ServerError: a client failed.
    """
    headers = dict(endpoint.headers)
    kind = headers.pop("Content-Type")
    count = -(-clients // _CLIENTS_EACH)
    plan = ClosedLoopPlan(
        endpoint.url,
        [Rendered("served", endpoint.path, kind, data) for data in bodies],
        clients // count,
        headers,
        seconds=seconds,
        warm_up_s=min(_WARM_UP_S, seconds),
    )
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(run_load, [plan] * count))
    failures = {status: n for one in found for status, n in one.failures.items()}
    if failures:
        raise BenchmarkError(f"of the answers some are wrong: {failures}")
    latencies = np.concatenate([one.latencies_ms for one in found])
    return Load(
        sum(one.per_second for one in found),
        float(np.percentile(latencies, 50)),
        float(np.percentile(latencies, 99)),
    )


@dataclass(frozen=True)
class _Served:
    """Loads of one contender."""

    name: str
    many: Load
    lone: Load


def run(context: GpuContext) -> TaskResult:
    """Load TorchServe and FastAPI in turn."""
    model = context.model(text=False)
    way = context.ways[0]
    predictor = model.load(context.device, *way, batch=max(context.scale.batches))
    rates = measure_rates(context, model, way, predictor)
    best, alone_ms = best_rates(rates), 1e3 / rates[0].whole
    del predictor
    pictures = _write(context.work / "pictures", jpegs(_SENT))
    reference = _reference(model, pictures)
    ours: list[_Served] = []
    for workers in context.scale.workers:
        store = context.work / "stores" / f"{context.scale.name}-{workers}"
        mar = model.pack(store, *way, workers=workers, batch=best.batch)
        words = f"TorchServe, {workers} workers, batch ≤ {min(best.batch, 256)}"
        contender = Newshelf(words, mar, words, context.work)
        ours.append(_measure(context, contender, pictures, reference))
    peers: list[_Served] = []
    for workers, threads in context.scale.peers:
        layout = PeerLayout("FastAPI", workers, threads, onnxruntime=way[0] == "onnxruntime")
        served = ServedModel(model.folder, *way, device=context.device.kind)
        peer = Peer(layout, Path(sys.executable), served, context.work)
        measured = _measure(context, peer, pictures, reference)
        peers.append(_Served(f"{peer.name}, {peer.layout}", measured.many, measured.lone))
    fastest = max(ours, key=lambda one: one.many.per_second)
    quickest = min(ours, key=lambda one: one.lone.p50_ms)
    return TaskResult(
        task="server",
        title="TorchServe and FastAPI",
        protocol=(
            f"{_SENT} JPEGs of 400 × 300 pixels in turn as the body of a request, by "
            f"{context.scale.clients} clients, then by one, on the same cores; {' '.join(way)}. "
            "FastAPI runs the same graph by the same runtime on the same device and decodes on "
            "the CPU, in as many threads as are named; the best of its layouts is the baseline."
        ),
        rows=[
            *(Row(_LOOPED, one.name, [one.many.per_second]) for one in ours),
            Row(_LOOPED, f"in process, batch {best.batch}", [best.whole], baseline=True),
            Row(_PEERED, fastest.name, [fastest.many.per_second]),
            *(Row(_PEERED, one.name, [one.many.per_second], baseline=True) for one in peers),
            Row(_LONE, quickest.name, [quickest.lone.p50_ms]),
            Row(_LONE, "in process", [alone_ms], baseline=True),
        ],
        goals=[
            Goal(_LOOPED, _LOOPED_GOAL, "times"),
            Goal(_PEERED, _PEERED_GOAL, "times"),
            Goal(_LONE, _LONE_MS, "plus"),
        ],
        notes=[
            f"{one.name}: p99 {one.many.p99_ms:.1f} ms; one client {one.lone.p50_ms:.1f} ms"
            for one in (*ours, *peers)
        ],
        percent=False,
        lower_is_better=[_LONE],
    )


def _measure(
    context: GpuContext,
    contender: Contender,
    pictures: Sequence[Path],
    reference: NDArray[np.float32],
) -> _Served:
    context.console.print(contender.name, markup=False)
    bodies = [path.read_bytes() for path in pictures]
    with contender.run() as endpoint:
        wait_for_answer(endpoint, pictures[0], timeout_s=_START_S)
        check_answers(endpoint, pictures[:8], reference[:8])
        seconds = context.scale.load_seconds
        many = load(endpoint, bodies, context.scale.clients, seconds)
        return _Served(contender.name, many, load(endpoint, bodies, 1, seconds))


def _write(folder: Path, pictures: Sequence[bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.jpg" for number in range(len(pictures))]
    for path, data in zip(paths, pictures, strict=True):
        path.write_bytes(data)
    return paths


def _reference(model: GpuModel, pictures: Sequence[Path]) -> NDArray[np.float32]:
    predictor = model.load(Device(), "torchscript", "fp32")
    answers = predictor.predict(model.requests(len(pictures)))
    found = [orjson.loads(answer.body)["embedding"] for answer in answers]
    return np.asarray(found, dtype=np.float32)
