"""Layouts of workers, threads and batches of the served encoder, on two cores."""

from benchmarks.serve.context import Context
from benchmarks.serve.encoder import CLIENTS, newshelf_plan
from benchmarks.serve.models import make_model
from benchmarks.serve.pictures import SMALL
from benchmarks.serve.rounds import run_rounds, server_turn
from benchmarks.serve.tables import details
from benchmarks.serve.torchserve import Layout, newshelf_encoder
from benchmarks.transfer.result import Row, TaskResult

__all__ = ["LAYOUTS", "run"]

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


def run(context: Context) -> TaskResult:
    """Load the Lite0 encoder with each layout."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    plan = newshelf_plan(model, SMALL, (CLIENTS, 1), context)
    servers = [newshelf_encoder(model, one, context.work, one.words()) for one in LAYOUTS]
    turns = [server_turn(server, plan) for server in servers]
    found = run_rounds(turns, context.rounds, context.console)
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
