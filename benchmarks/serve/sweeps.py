"""The encoder over clients, batch sizes and layouts, and with the cache of embeddings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from benchmarks.results import Row, TaskResult
from benchmarks.serve.command import ServeContext
from benchmarks.serve.contender import Contender
from benchmarks.serve.encoder import CLIENTS, LAYOUT, loop_turn, peers_of, picture_load
from benchmarks.serve.inprocess import Loop
from benchmarks.serve.models import MODELS, SMALL, make_model
from benchmarks.serve.rounds import Measured, details, run_rounds, run_servers, server_turn
from benchmarks.serve.torchserve import Layout, newshelf_encoder, unpacked
from newshelf.report.plots import Line, draw_lines

CLIENT_COUNTS = (1, 2, 4, 8, 16, 32, 64)
_ONE_WORKER = Layout(workers=1, threads=2, batch_size=8, decode_threads=2)
"""The default settings on two cores: one worker computes the batch of a few clients on all cores;
with two, one would be idle."""
_ONE_WORKER_NAME = "Newshelf, one worker"
_PANELS = {"requests/s": "per_second", "p50, ms": "p50_ms", "p99, ms": "p99_ms"}


def _leaders(found: Mapping[str, Measured], ours: Sequence[str]) -> list[str]:
    """Return a note per number of clients: who answers most requests, and the ratio."""

    def fastest(names: Iterable[str], clients: int) -> tuple[float, str]:
        return max((median(found[name].values(clients)), name) for name in names)

    notes = []
    for clients in CLIENT_COUNTS:
        own, layout = fastest(ours, clients)
        theirs, peer = fastest(found.keys() - set(ours), clients)
        leader = f"**{peer} leads**" if theirs > own else f"{layout} leads"
        notes.append(
            f"{clients} clients: {leader}; {layout} {own:.0f}/s is {own / theirs:.2f} times "
            f"{peer}'s {theirs:.0f}/s."
        )
    return notes


def run_clients(context: ServeContext) -> TaskResult:
    """Load each server with each number of clients."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    ours = newshelf_encoder(model, LAYOUT, context.work)
    plan = picture_load(model, SMALL, CLIENT_COUNTS, context)
    servers: list[Contender] = [
        ours,
        newshelf_encoder(model, _ONE_WORKER, context.work, _ONE_WORKER_NAME),
        *peers_of(model, unpacked(ours.archive), context),
    ]
    found = run_servers(servers, plan, context.rounds, context.console)
    panels = {
        title: {
            name: Line(
                CLIENT_COUNTS, [median(one.values(clients, value)) for clients in CLIENT_COUNTS]
            )
            for name, one in found.items()
        }
        for title, value in _PANELS.items()
    }
    figure = context.figures / "clients.png"
    draw_lines(panels, figure, xlabel="clients", ylabel="", log_x=True)
    return TaskResult(
        task="clients",
        title="Cost over clients",
        protocol="The encoder with EfficientNet-Lite0, 400×300 pictures, 1 to 64 clients.",
        rows=[
            Row(f"{clients} clients, requests/s", name, one.values(clients), robust=True)
            for clients in CLIENT_COUNTS
            for name, one in found.items()
        ],
        notes=_leaders(found, [ours.name, _ONE_WORKER_NAME]),
        figures={"throughput and latency over clients": figure},
        details=details(list(found.values())),
        percent=False,
    )


_CACHED = "32 clients, requests/s"
_ON, _OFF = "with the cache", "without"


def run_cache(context: ServeContext) -> TaskResult:
    """Load the encoder with the same few pictures, with the cache and without."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    plan = picture_load(model, SMALL, (CLIENTS, 1), context)
    servers = [
        newshelf_encoder(model, replace(LAYOUT, cache_bytes=64_000_000), context.work, _ON),
        newshelf_encoder(model, LAYOUT, context.work, _OFF),
    ]
    found = run_servers(servers, plan, context.rounds, context.console)
    return TaskResult(
        task="cache",
        title="Repeated pictures",
        protocol=(
            f"{len(plan.pictures)} pictures again and again: what a shop's list pages do, and no "
            "part of any comparison above, where the cache is off."
        ),
        rows=[
            Row(_CACHED, name, one.values(CLIENTS), baseline=name == _OFF, robust=True)
            for name, one in found.items()
        ],
        details=details(list(found.values())),
        percent=False,
    )


BATCH_SIZES = (1, 2, 4, 8, 16, 32)


def run_batches(context: ServeContext) -> TaskResult:
    """Load each model with each batch size."""
    rows: list[Row] = []
    panels: dict[str, dict[str, Line]] = {}
    for name in MODELS:
        model = make_model(name, context.work, context.catalog, context.console)
        plan = picture_load(model, SMALL, (CLIENTS,), context)
        turns = []
        for size in BATCH_SIZES:
            served = newshelf_encoder(model, Layout(2, 1, size), context.work, f"served, {size}")
            turns.append(server_turn(served, plan))
            loop = Loop(2, 1, size)
            turns.append(
                loop_turn(f"in process, {size}", loop, unpacked(served.archive), plan, CLIENTS)
            )
        found = run_rounds(turns, context.rounds, context.console)
        for way in ("served", "in process"):
            speeds = [found[f"{way}, {size}"].values(CLIENTS) for size in BATCH_SIZES]
            panels.setdefault(name, {})[way] = Line(BATCH_SIZES, [median(each) for each in speeds])
            rows += [
                Row(f"{name}, batch ≤ {size}, pictures/s", way, each, way != "served", robust=True)
                for size, each in zip(BATCH_SIZES, speeds, strict=True)
            ]
    figure = context.figures / "batches.png"
    draw_lines(panels, figure, xlabel="batch size", ylabel="pictures/s", log_x=True)
    return TaskResult(
        task="batches",
        title="Cost over batch size",
        protocol=(
            f"400×300 pictures, two workers (or processes) of one thread, {CLIENTS} clients. "
            "Served, the size is the most that a batch may hold."
        ),
        rows=rows,
        figures={"throughput over batch size": figure},
        percent=False,
    )


LAYOUTS = tuple(
    Layout(workers, threads, batch, delay, decode)
    for workers, threads, batch, delay, decode in (
        (1, 2, 8, 3, 2),
        (2, 1, 1, 1, 1),
        (2, 1, 4, 3, 1),
        (2, 1, 8, 1, 1),
        (2, 1, 8, 3, 1),
        (2, 1, 8, 3, 2),
        (2, 2, 8, 3, 2),
        (3, 1, 4, 1, 1),
        (3, 1, 4, 3, 1),
        (4, 1, 4, 3, 1),
    )
)


def run_layouts(context: ServeContext) -> TaskResult:
    """Load the encoder with each layout."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    plan = picture_load(model, SMALL, (CLIENTS, 1), context)
    servers = [newshelf_encoder(model, one, context.work, one.words()) for one in LAYOUTS]
    found = run_servers(servers, plan, context.rounds, context.console)
    measures = ((f"{CLIENTS} clients, requests/s", CLIENTS, "per_second"), _ALONE)
    return TaskResult(
        task="layouts",
        title="Layouts",
        protocol=(
            "The same encoder (EfficientNet-Lite0) with the same requests; `./run tune` searches "
            "a wider field on other machines."
        ),
        rows=[
            Row(measure, name, one.values(clients, value), robust=True)
            for measure, clients, value in measures
            for name, one in found.items()
        ],
        details=details(list(found.values())),
        percent=False,
        lower_is_better=[_ALONE[0]],
    )


_ALONE = ("1 client, p50 ms", 1, "p50_ms")
