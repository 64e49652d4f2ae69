"""What the cache of embeddings brings when pictures come again."""

from dataclasses import replace

from benchmarks.serve.context import Context
from benchmarks.serve.encoder import CLIENTS, newshelf_plan
from benchmarks.serve.lite0 import COMPARISON
from benchmarks.serve.models import make_model
from benchmarks.serve.pictures import SMALL
from benchmarks.serve.rounds import run_rounds, server_turn
from benchmarks.serve.tables import details
from benchmarks.serve.torchserve import newshelf_encoder
from benchmarks.transfer.result import Row, TaskResult

__all__ = ["run"]

_MEASURE = "32 clients, requests/s"
_ON, _OFF = "with the cache", "without"


def run(context: Context) -> TaskResult:
    """The same few pictures, with the cache and without."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    plan = newshelf_plan(model, SMALL, (CLIENTS, 1), context)
    off = COMPARISON.layout
    servers = [
        newshelf_encoder(model, replace(off, cache_bytes=64_000_000), context.work, _ON),
        newshelf_encoder(model, off, context.work, _OFF),
    ]
    turns = [server_turn(server, plan) for server in servers]
    found = run_rounds(turns, context.rounds, context.console)
    return TaskResult(
        task="cache",
        title="Repeated pictures",
        protocol=(
            f"{len(plan.pictures)} pictures again and again: what a shop's list pages do, and no "
            "part of any comparison above, where the cache is off."
        ),
        rows=[
            Row(_MEASURE, name, one.values(CLIENTS), baseline=name == _OFF, robust=True)
            for name, one in found.items()
        ],
        details=details(list(found.values())),
        percent=False,
    )
