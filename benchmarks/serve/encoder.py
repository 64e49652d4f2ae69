"""The encoder against the stock handler, the peers and a call in process."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.environments import peers_python, stock_python
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.command import ServeContext
from benchmarks.serve.inprocess import Loop, run_in_process
from benchmarks.serve.models import LARGE, SMALL, Model, Size, make_model, make_pictures
from benchmarks.serve.peer import Peer, PeerLayout, ServedModel
from benchmarks.serve.rounds import Measured, PictureLoad, Turn, details, run_rounds, server_turn
from benchmarks.serve.stock import Stock
from benchmarks.serve.torchserve import Layout, newshelf_encoder, served_by, unpacked
from benchmarks.serve.wrk import Load
from newshelf.config import Precision, RuntimeKind
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.protocol import RawRequest
from newshelf.serving.runtimes.base import graph_files
from newshelf.serving.settings import ServingSettings

CLIENTS = 32
_NEWSHELF = "Newshelf"
_FLOAT32 = "Newshelf, float32"
_LARGE = "Newshelf, 1200×900"
_LOOP = "in process, no server"
_LOOP_ALONE = "in process, one picture at a time"
_LOOP_ALL = "in process, one picture at a time on all cores"
_STOCK_GOAL, _LOOP_GOAL, _PEER_GOAL, _LARGE_GOAL = 6.0, 0.95, 1.15, 0.75
_ALONE_MS = 3.0
_SWEEP_S = 3.0


_BATCHES = {"minWorkers": 2, "batchSize": 8, "maxBatchDelay": 5}
STOCK: Sequence[tuple[Mapping[str, int], int | None]] = (
    ({}, None),
    (_BATCHES, None),
    ({"minWorkers": 2}, 1),
    (_BATCHES, 1),
)
"""``model-config.yaml`` and threads per worker of each stock handler: the defaults, and one
worker of one thread per core, as TorchServe's guide to CPUs advises."""
# As many workers, threads and pictures per batch as the peers have.
LAYOUT = Layout(workers=2, threads=1, batch_size=8)
_PEERS = (
    PeerLayout("FastAPI", 2, 1, onnxruntime=True),
    PeerLayout("FastAPI", 2, 1),
    PeerLayout("LitServe", 2, 1, 8, 5.0),
    PeerLayout("Ray Serve", 2, 1, 8, 5.0),
    PeerLayout("BentoML", 2, 1, 8),
)
_LOOPS = (Loop(1, 2, 8, 2), Loop(2, 1, 1), Loop(2, 1, 8), Loop(3, 1, 4))


def run_resnet50(context: ServeContext) -> TaskResult:
    """Compare the contenders on ResNet-50, the production tower."""
    return _compare(
        "resnet50",
        "Encoder with ResNet-50",
        "The weights are random, of a fixed seed, with batch norms that were fitted to the "
        "pictures: no trained ones come with a package, and the time does not depend on them.",
        context,
    )


def run_lite0(context: ServeContext) -> TaskResult:
    """Compare the contenders on EfficientNet-Lite0, the packaged tower."""
    title = "Encoder with EfficientNet-Lite0"
    return _compare("lite0", title, "The weights are the packaged ones.", context)


def _compare(task: str, title: str, weights: str, context: ServeContext) -> TaskResult:
    model = make_model(task, context.work, context.catalog, context.console)
    ours = newshelf_encoder(model, LAYOUT, context.work, _NEWSHELF)
    archive = unpacked(ours.archive)
    small = picture_load(model, SMALL, (CLIENTS, 1), context)
    large = picture_load(model, LARGE, (CLIENTS,), context)
    loop = _fastest(archive, small.pictures, context)
    plain = newshelf_encoder(
        model, replace(LAYOUT, archive={"precision": "fp32"}), context.work, _FLOAT32
    )
    stocks = _stocks(model, context)
    peers = peers_of(model, archive, context)
    refused: list[str] = []
    turns = [
        server_turn(ours, small),
        server_turn(plain, replace(small, clients=(CLIENTS,))),
        *(server_turn(stock, small) for stock in stocks),
        *(server_turn(peer, small) for peer in peers),
        _or_reason(server_turn(replace(ours, name=_LARGE), large), refused),
        loop_turn(_LOOP, loop, archive, small, CLIENTS),
        loop_turn(_LOOP_ALONE, Loop(1, LAYOUT.threads, 1), archive, small, 1),
        loop_turn(_LOOP_ALL, Loop(1, len(os.sched_getaffinity(0)), 1), archive, small, 1),
    ]
    found = run_rounds(turns, context.rounds, context.console)
    arithmetic = {
        **{one.name: " ".join(served_by(unpacked(one.archive))) for one in (ours, plain)},
        **{stock.name: "TorchScript float32" for stock in stocks},
        **{peer.name: f"{peer.served.runtime} {peer.served.precision}" for peer in peers},
    }
    arithmetic |= dict.fromkeys((_LARGE, _LOOP, _LOOP_ALONE), arithmetic[_NEWSHELF])
    named = [peer.name for peer in peers]
    return TaskResult(
        task=task,
        title=title,
        protocol=_protocol(weights, archive, len(small.pictures)),
        rows=_rows(found, [stock.name for stock in stocks], named, arithmetic),
        goals=_goals(task),
        notes=list(dict.fromkeys(refused)),
        details=details(list(found.values())),
        percent=False,
        lower_is_better=[_P99, _P50],
    )


def _or_reason(turn: Turn, refused: list[str]) -> Turn:
    """Return the turn without its errors: wrong answers leave this figure out and no other."""

    def take(measured: Measured) -> None:
        try:
            turn.take(measured)
        except BenchmarkError as error:
            refused.append(f"{turn.name}: no figure, since {error}.")

    return replace(turn, take=take)


def picture_load(
    model: Model,
    size: Size,
    clients: Sequence[int],
    context: ServeContext,
) -> PictureLoad:
    """Return a load of pictures of ``size`` with the embeddings by the float32 graph."""
    pictures = make_pictures(context.work, size, context.catalog)
    expected = reference(model, pictures)
    return PictureLoad(pictures, expected, clients, context.seconds, context.warm_up_s)


def reference(model: Model, pictures: Sequence[Path]) -> NDArray[np.float32]:
    """Return ``(len(pictures), 512)`` embeddings by the float32 graph, in this process."""
    predictor = load_encoder_predictor(model.workspace.export, settings=ServingSettings())
    rows = [RawRequest({"body": path.read_bytes()}, "image/jpeg") for path in pictures]
    answers = [predictor.predict([row])[0] for row in rows]
    found = [orjson.loads(answer.body)["embedding"] for answer in answers]
    return np.asarray(found, dtype=np.float32)


def best_peer(found: Mapping[str, Measured], peers: Sequence[str]) -> str:
    """Return the peer with the most requests per second."""
    return max(peers, key=lambda name: float(np.median(found[name].values(CLIENTS))))


_STOCK = "compared with the stock handler, requests/s"
_LOOPED = "compared with the same pipeline in process, pictures/s"
_PEERED = "compared with the peers, requests/s"
_P99 = "p99 compared with the best peer's, ms"
_P50 = "one client: p50 compared with a call in process, ms"
_SIZED = "1200×900 compared with 400×300, requests/s"


def _rows(
    found: Mapping[str, Measured],
    stocks: Sequence[str],
    peers: Sequence[str],
    arithmetic: Mapping[str, str],
) -> list[Row]:
    """Return the rows; each names runtime and precision, which a ratio of servers depends on."""

    def row(measure: str, name: str, clients: int, value: str, *, baseline: bool = False) -> Row:
        values = found[name].values(clients, value)
        method = f"{name} ({arithmetic[name]})"
        return Row(measure, method, values, baseline=baseline, robust=True)

    rows = [row(_STOCK, _FLOAT32, CLIENTS, "per_second")]
    for measure, others in ((_STOCK, stocks), (_LOOPED, [_LOOP]), (_PEERED, peers)):
        rows.append(row(measure, _NEWSHELF, CLIENTS, "per_second"))
        rows += [row(measure, other, CLIENTS, "per_second", baseline=True) for other in others]
    fastest = best_peer(found, peers)
    return [
        *rows,
        row(_P99, _NEWSHELF, CLIENTS, "p99_ms"),
        row(_P99, fastest, CLIENTS, "p99_ms", baseline=True),
        row(_P50, _NEWSHELF, 1, "p50_ms"),
        row(_P50, _LOOP_ALONE, 1, "p50_ms", baseline=True),
        *([row(_SIZED, _LARGE, CLIENTS, "per_second")] if found[_LARGE].loads else []),
        row(_SIZED, _NEWSHELF, CLIENTS, "per_second", baseline=True),
    ]


def _goals(task: str) -> list[Goal]:
    stock = [Goal(_STOCK, _STOCK_GOAL, "times")] if task == "resnet50" else []
    return [
        *stock,
        Goal(_LOOPED, _LOOP_GOAL, "times"),
        Goal(_PEERED, _PEER_GOAL, "times"),
        Goal(_P99, 1.0, "times"),
        Goal(_P50, _ALONE_MS, "plus"),
        Goal(_SIZED, _LARGE_GOAL, "times"),
    ]


def _stocks(model: Model, context: ServeContext) -> list[Stock]:
    python = stock_python(context.work, context.console)
    return [
        Stock(python, model.classifier, context.work, config, threads) for config, threads in STOCK
    ]


def peers_of(model: Model, archive: Path, context: ServeContext) -> list[Peer]:
    """Return the peers with the runtime and precision of Newshelf's unpacked ``archive``."""
    python = peers_python(context.work, context.console)
    runtime, precision = served_by(archive)
    usual = ServedModel(model.workspace.export, runtime, precision)
    # Both runtimes read the same files; int8 only if it passed the gate with this runtime, too.
    quantised = precision == "int8" and _exported(model, "onnxruntime", "int8")
    plain = replace(usual, runtime="onnxruntime", precision="int8" if quantised else "fp32")
    peers = [Peer(one, python, plain if one.onnxruntime else usual, context.work) for one in _PEERS]
    return list({peer.name: peer for peer in peers}.values())


def _exported(model: Model, runtime: RuntimeKind, precision: Precision) -> bool:
    return (model.workspace.export / graph_files("encoder", runtime, precision)[0]).is_file()


def _fastest(archive: Path, pictures: Sequence[Path], context: ServeContext) -> Loop:
    """Return the fastest loop, from a short run of each."""
    found = {}
    for loop in _LOOPS:
        found[loop] = run_in_process(archive, pictures, loop, _SWEEP_S).per_second
        context.console.print(f"in process, {loop.words()}: {found[loop]:.1f}/s", markup=False)
    return max(found, key=lambda loop: found[loop])


def loop_turn(name: str, loop: Loop, archive: Path, plan: PictureLoad, clients: int) -> Turn:
    """Return a turn of a loop in process, listed under ``clients`` like the servers' loads."""

    def take(measured: Measured) -> None:
        found = run_in_process(archive, plan.pictures, loop, plan.seconds)
        p50, p99 = found.p50_ms, found.p99_ms
        measured.add(clients, Load(clients, 0, found.per_second, p50, p99, p99, p99))

    return Turn(name, loop.words(), take)


def _protocol(weights: str, archive: Path, pictures: int) -> str:
    runtime, precision = served_by(archive)
    return (
        f"{pictures} different JPEG pictures of 400×300 pixels (quality 85), sent in turn as the "
        f"body of a request by {CLIENTS} clients, then by one; once more at 1200×900. "
        f"{weights} Newshelf serves by {runtime} in {precision}, which its gate let "
        "pass as the fastest; the peers run the same graph in the same precision by the same "
        "runtime, and prepare pictures by the same function. FastAPI is measured with ONNX "
        "Runtime, too, and with its limiter at one thread per worker. The stock handler has the "
        "same tower with its 1,000 classes as TorchScript, "
        "which is what it serves, with its settings as they come and with one thread per worker; "
        "the better one is the baseline. Caches of embeddings are off."
    )
