"""The encoder compared with the stock handler, the peers and a call in process."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.environments import peers_python, stock_python
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.command import Context
from benchmarks.serve.inprocess import Loop, run_in_process
from benchmarks.serve.models import LARGE, SMALL, Model, Size, make_model, make_pictures
from benchmarks.serve.peer import Peer, PeerLayout, Served
from benchmarks.serve.rounds import Measured, Plan, Turn, details, run_rounds, server_turn
from benchmarks.serve.stock import Stock
from benchmarks.serve.torchserve import Layout, newshelf_encoder, served_by, unpacked
from benchmarks.serve.wrk import Load
from newshelf.serving.load import load_encoder_predictor
from newshelf.serving.protocol import RawRequest
from newshelf.serving.runtimes.base import Kind, Precision
from newshelf.serving.runtimes.graph import graph_file
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
"""As it comes, and as TorchServe's guide advises for CPUs: a worker per core, of one thread."""


@dataclass(frozen=True)
class Comparison:
    """What one model is measured with."""

    task: str
    title: str
    layout: Layout
    """Newshelf's."""
    stock: Sequence[tuple[Mapping[str, int], int | None]]
    """The stock handler's ``model-config.yaml`` and threads per worker, one contender each."""
    peers: Sequence[PeerLayout]
    loops: Sequence[Loop]
    """Of which the fastest is the yardstick."""
    weights: str
    """Where they are from; a sentence."""


def compare(comparison: Comparison, context: Context) -> TaskResult:
    """Measure everything, and set it beside its goals."""
    model = make_model(comparison.task, context.work, context.catalog, context.console)
    ours = newshelf_encoder(model, comparison.layout, context.work, _NEWSHELF)
    archive = unpacked(ours.archive)
    small = newshelf_plan(model, SMALL, (CLIENTS, 1), context)
    large = newshelf_plan(model, LARGE, (CLIENTS,), context)
    loop = _fastest(comparison.loops, archive, small.pictures, context)
    plain = newshelf_encoder(
        model, replace(comparison.layout, archive={"precision": "fp32"}), context.work, _FLOAT32
    )
    stocks = _stocks(comparison, model, context)
    peers = peers_of(comparison, model, archive, context)
    refused: list[str] = []
    turns = [
        server_turn(ours, small),
        server_turn(plain, replace(small, clients=(CLIENTS,))),
        *(server_turn(stock, small) for stock in stocks),
        *(server_turn(peer, small) for peer in peers),
        _or_reason(server_turn(replace(ours, name=_LARGE), large), refused),
        loop_turn(_LOOP, loop, archive, small, CLIENTS),
        loop_turn(_LOOP_ALONE, Loop(1, comparison.layout.threads, 1), archive, small, 1),
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
        task=comparison.task,
        title=comparison.title,
        protocol=_protocol(comparison, archive, len(small.pictures)),
        rows=_rows(found, [stock.name for stock in stocks], named, arithmetic),
        goals=_goals(comparison),
        notes=list(dict.fromkeys(refused)),
        details=details(list(found.values())),
        percent=False,
        lower_is_better=[_P99, _P50],
    )


def _or_reason(turn: Turn, refused: list[str]) -> Turn:
    """The same turn; answers that are wrong for these pictures cost its figure alone."""

    def take(measured: Measured) -> None:
        try:
            turn.take(measured)
        except BenchmarkError as error:
            refused.append(f"{turn.name}: no figure, since {error}.")

    return replace(turn, take=take)


def newshelf_plan(
    model: Model, size: Size, clients: Sequence[int], context: Context, count: int | None = None
) -> Plan:
    """Pictures of ``size``, and what the float32 graph makes of them."""
    pictures = make_pictures(context.work, size, context.catalog)[:count]
    expected = reference(model, pictures)
    return Plan(pictures, expected, clients, context.seconds, context.warm_up_s)


def reference(model: Model, pictures: Sequence[Path]) -> NDArray[np.float32]:
    """``(len(pictures), 512)``: the embeddings by the float32 graph, alone in this process."""
    predictor = load_encoder_predictor(model.workspace.export, settings=ServingSettings())
    rows = [RawRequest({"body": path.read_bytes()}, "image/jpeg") for path in pictures]
    answers = [predictor.predict([row])[0] for row in rows]
    found = [orjson.loads(answer.body)["embedding"] for answer in answers]
    return np.asarray(found, dtype=np.float32)


def best_peer(found: Mapping[str, Measured], peers: Sequence[str]) -> str:
    """The one with the most requests per second."""
    return max(peers, key=lambda name: float(np.median(found[name].values(CLIENTS))))


_STOCK = "beside the stock handler, requests/s"
_LOOPED = "beside the same pipeline in process, pictures/s"
_PEERED = "beside the peers, requests/s"
_P99 = "p99 beside the best peer's, ms"
_P50 = "one client: p50 beside a call in process, ms"
_SIZED = "1200×900 beside 400×300, requests/s"


def _rows(
    found: Mapping[str, Measured],
    stocks: Sequence[str],
    peers: Sequence[str],
    arithmetic: Mapping[str, str],
) -> list[Row]:
    """Each row names runtime and precision: a ratio of int8 to float32 is not one of servers."""

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


def _goals(comparison: Comparison) -> list[Goal]:
    stock = [Goal(_STOCK, _STOCK_GOAL, "times")] if comparison.task == "resnet50" else []
    return [
        *stock,
        Goal(_LOOPED, _LOOP_GOAL, "times"),
        Goal(_PEERED, _PEER_GOAL, "times"),
        Goal(_P99, 1.0, "times"),
        Goal(_P50, _ALONE_MS, "plus"),
        Goal(_SIZED, _LARGE_GOAL, "times"),
    ]


def _stocks(comparison: Comparison, model: Model, context: Context) -> list[Stock]:
    python = stock_python(context.work, context.console)
    return [
        Stock(python, model.classifier, context.work, config, threads)
        for config, threads in comparison.stock
    ]


def peers_of(comparison: Comparison, model: Model, archive: Path, context: Context) -> list[Peer]:
    """The peers with what Newshelf's unpacked ``archive`` is served by."""
    python = peers_python(context.work, context.console)
    runtime, precision = served_by(archive)
    usual = Served(model.workspace.export, runtime, precision)
    # The one file that is quantised, and the float32 one, are for both runtimes; int8 only where
    # it passed the gate by this one, too.
    quantised = precision == "int8" and _exported(model, "onnxruntime", "int8")
    plain = replace(usual, runtime="onnxruntime", precision="int8" if quantised else "fp32")
    peers = [
        Peer(one, python, plain if one.onnxruntime else usual, context.work)
        for one in comparison.peers
    ]
    return list({peer.name: peer for peer in peers}.values())


def _exported(model: Model, runtime: Kind, precision: Precision) -> bool:
    return (model.workspace.export / graph_file("encoder", runtime, precision)).is_file()


def _fastest(
    loops: Sequence[Loop], archive: Path, pictures: Sequence[Path], context: Context
) -> Loop:
    """Try each for a moment."""
    found = {}
    for loop in loops:
        found[loop] = run_in_process(archive, pictures, loop, _SWEEP_S).per_second
        context.console.print(f"in process, {loop.words()}: {found[loop]:.1f}/s", markup=False)
    return max(found, key=lambda loop: found[loop])


def loop_turn(name: str, loop: Loop, archive: Path, plan: Plan, clients: int) -> Turn:
    """A loop in process, set down under ``clients`` beside the servers' loads."""

    def take(measured: Measured) -> None:
        found = run_in_process(archive, plan.pictures, loop, plan.seconds)
        p50, p99 = found.p50_ms, found.p99_ms
        measured.add(clients, Load(clients, 0, found.per_second, p50, p99, p99, p99))

    return Turn(name, loop.words(), take)


def _protocol(comparison: Comparison, archive: Path, pictures: int) -> str:
    runtime, precision = served_by(archive)
    return (
        f"{pictures} different JPEG pictures of 400×300 pixels (quality 85), sent in turn as the "
        f"body of a request by {CLIENTS} clients, then by one; once more at 1200×900. "
        f"{comparison.weights} Newshelf serves by {runtime} in {precision}, which its gate let "
        "pass as the fastest; the peers run the same graph in the same precision by the same "
        "runtime, and prepare pictures by the same function. FastAPI is measured with ONNX "
        "Runtime, too, and with its limiter at one thread per worker. The stock handler has the "
        "same tower with its 1,000 classes as TorchScript, "
        "which is what it serves, with its settings as they come and with one thread per worker; "
        "the better one is the baseline. Caches of embeddings are off."
    )


LITE0 = Comparison(
    task="lite0",
    title="Encoder with EfficientNet-Lite0",
    # As many workers, threads and pictures at once as the peers have.
    layout=Layout(workers=2, threads=1, batch_size=8),
    stock=STOCK,
    peers=(
        PeerLayout("FastAPI", 2, 1, onnxruntime=True),
        PeerLayout("FastAPI", 2, 1),
        PeerLayout("LitServe", 2, 1, 8, 5.0),
        PeerLayout("Ray Serve", 2, 1, 8, 5.0),
        PeerLayout("BentoML", 2, 1, 8),
    ),
    loops=(Loop(1, 2, 8, 2), Loop(2, 1, 1), Loop(2, 1, 8), Loop(3, 1, 4)),
    weights="The weights are the packaged ones.",
)


def run_lite0(context: Context) -> TaskResult:
    """See ``benchmarks.serve.encoder``."""
    return compare(LITE0, context)


RESNET50 = Comparison(
    task="resnet50",
    title="Encoder with ResNet-50",
    # As many workers, threads and pictures at once as the peers have.
    layout=Layout(workers=2, threads=1, batch_size=8),
    stock=STOCK,
    peers=(
        PeerLayout("FastAPI", 2, 1, onnxruntime=True),
        PeerLayout("FastAPI", 2, 1),
        PeerLayout("LitServe", 2, 1, 8, 5.0),
        PeerLayout("Ray Serve", 2, 1, 8, 5.0),
        PeerLayout("BentoML", 2, 1, 8),
    ),
    loops=(Loop(1, 2, 8, 2), Loop(2, 1, 1), Loop(2, 1, 8), Loop(3, 1, 4)),
    weights=(
        "The weights are random, of a fixed seed, with batch norms that were fitted to the "
        "pictures: no trained ones come with a package, and the time does not depend on them."
    ),
)


def run_resnet50(context: Context) -> TaskResult:
    """See ``benchmarks.serve.encoder``."""
    return compare(RESNET50, context)
