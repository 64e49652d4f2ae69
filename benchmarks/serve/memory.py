"""What a second worker on the same model costs."""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.serve.check import wait_for_answer
from benchmarks.serve.context import Context
from benchmarks.serve.load import load
from benchmarks.serve.models import MODELS, Model, make_model
from benchmarks.serve.pictures import SMALL, make_pictures
from benchmarks.serve.torchserve import Layout, newshelf_encoder
from benchmarks.serve.workers import proportional_bytes, require_unshared, worker_processes
from benchmarks.transfer.report import markdown_table
from benchmarks.transfer.result import Goal, Row, TaskResult

__all__ = ["run"]

_GOAL = 0.40
_MEGABYTE = 1e6
_CLIENTS = 32
_BATCH = 8


def run(context: Context) -> TaskResult:
    """Proportional set size with one worker and with two, after the same load."""
    rows, lines = [], []
    for name in MODELS:
        model = make_model(name, context.work, context.catalog, context.console)
        pairs = [(_bytes(model, 1, context), _bytes(model, 2, context)) for _ in _rounds(context)]
        shares = [both / first - 1 for first, both in pairs]
        rows.append(Row(_measure(name), "Newshelf", shares, robust=True))
        first, both = (median(pair[at] for pair in pairs) / _MEGABYTE for at in (0, 1))
        lines.append((name, f"{first:.0f}", f"{both:.0f}", f"{both - first:.0f}"))
    header = ("model", "one worker, MB", "two workers, MB", "the second, MB")
    return TaskResult(
        task="memory",
        title="Memory of a second worker",
        protocol=(
            "Proportional set size (a page that n processes share counts 1/n for each) of the "
            "workers, of what TorchServe started in their stead and of the process from which they "
            f"are forked, after a load of {context.seconds:g} s by {_CLIENTS} clients on one "
            "worker and on two. The second worker's is what both take less what one takes alone; "
            "the share is of the first's."
        ),
        rows=rows,
        goals=[Goal(_measure(name), _GOAL) for name in MODELS],
        details=markdown_table(header, "lrrr", lines),
        lower_is_better=[_measure(name) for name in MODELS],
    )


def _rounds(context: Context) -> range:
    return range(context.rounds)


def _measure(name: str) -> str:
    return f"{name}: the second worker's share of the first's"


def _bytes(model: Model, workers: int, context: Context) -> int:
    pictures = make_pictures(context.work, SMALL, context.catalog)
    # The same threads in each worker: only their number differs.
    layout = Layout(workers=workers, threads=1, batch_size=_BATCH)
    server = newshelf_encoder(model, layout, context.work)
    with server.run() as endpoint, tempfile.TemporaryDirectory() as folder:
        wait_for_answer(endpoint, pictures[0])
        requests = endpoint.requests(pictures, Path(folder))
        load(endpoint.url, requests, clients=_CLIENTS, seconds=context.seconds)
        pids = worker_processes(endpoint.process)
        require_unshared(pids)
        found = proportional_bytes(pids)
    context.console.print(
        f"{model.name}, {workers} workers: {found / _MEGABYTE:.0f} MB", markup=False
    )
    return found
