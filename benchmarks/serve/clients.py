"""How throughput and latency grow with the clients: Newshelf, and each peer."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from benchmarks.serve.contender import Contender
from benchmarks.serve.context import Context
from benchmarks.serve.encoder import newshelf_plan, peers_of
from benchmarks.serve.lite0 import COMPARISON
from benchmarks.serve.models import make_model
from benchmarks.serve.pictures import SMALL
from benchmarks.serve.rounds import Measured, run_rounds, server_turn
from benchmarks.serve.tables import details
from benchmarks.serve.torchserve import Layout, newshelf_encoder, unpacked
from benchmarks.transfer.result import Row, TaskResult
from newshelf.evaluation.figures.lines import Line, draw_lines

__all__ = ["CLIENTS", "run"]

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
_ONE_WORKER = Layout(workers=1, threads=2, batch_size=8, decode_threads=2)
"""The settings as they come, on two cores: what few clients send together is one batch, which
one worker computes on all cores, while two would leave one of them idle."""
_ONE_WORKER_NAME = "Newshelf, one worker"
_PANELS = {"requests/s": "per_second", "p50, ms": "p50_ms", "p99, ms": "p99_ms"}


def _leaders(found: Mapping[str, Measured], ours: Sequence[str]) -> list[str]:
    """For each number of clients, who answers most requests, and by how much."""

    def fastest(names: Iterable[str], clients: int) -> tuple[float, str]:
        return max((median(found[name].values(clients)), name) for name in names)

    said = []
    for clients in CLIENTS:
        own, layout = fastest(ours, clients)
        theirs, peer = fastest(found.keys() - set(ours), clients)
        leader = f"**{peer} leads**" if theirs > own else f"{layout} leads"
        said.append(
            f"{clients} clients: {leader}; {layout} {own:.0f}/s is {own / theirs:.2f} times "
            f"{peer}'s {theirs:.0f}/s."
        )
    return said


def run(context: Context) -> TaskResult:
    """Load each server with each number of clients."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    layout = COMPARISON.layout
    ours = newshelf_encoder(model, layout, context.work)
    plan = newshelf_plan(model, SMALL, CLIENTS, context)
    servers: list[Contender] = [
        ours,
        newshelf_encoder(model, _ONE_WORKER, context.work, _ONE_WORKER_NAME),
        *peers_of(COMPARISON, model, unpacked(ours.archive), context),
    ]
    turns = [server_turn(server, plan) for server in servers]
    found = run_rounds(turns, context.rounds, context.console)
    panels = {
        title: {
            name: Line(CLIENTS, [median(one.values(clients, value)) for clients in CLIENTS])
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
            for clients in CLIENTS
            for name, one in found.items()
        ],
        notes=_leaders(found, [ours.name, _ONE_WORKER_NAME]),
        figures={"throughput and latency over clients": figure},
        details=details(list(found.values())),
        percent=False,
    )
