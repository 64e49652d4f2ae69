"""Whether a worker's memory grows with the requests that it has answered."""

import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.serve.check import wait_for_answer
from benchmarks.serve.context import Context
from benchmarks.serve.load import load
from benchmarks.serve.models import make_model
from benchmarks.serve.pictures import SMALL, make_pictures
from benchmarks.serve.torchserve import Layout, newshelf_encoder
from benchmarks.serve.workers import proportional_bytes, require_unshared, worker_processes
from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.evaluation.figures.lines import Line, draw_lines

__all__ = ["run"]

_GOAL = 0.02
_REQUESTS = 100_000
_WARM_UP = 5_000
_CLIENTS = 32
_TURN_S = 10
_SIDE = 64
_MEASURE = "growth over 10⁵ requests, encoder (lite0)"


def run(context: Context) -> TaskResult:
    """Load one server until it has answered ``_REQUESTS`` after the warm-up."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    # Small pictures take less time to decode; the forward is that of any other.
    pictures = _shrunk(make_pictures(context.work, SMALL, context.catalog), context.work)
    layout = Layout(workers=2, threads=1, batch_size=8)
    server = newshelf_encoder(model, layout, context.work)
    answered, sizes = [0], []
    with server.run() as endpoint, tempfile.TemporaryDirectory() as folder:
        wait_for_answer(endpoint, pictures[0])
        requests = endpoint.requests(pictures, Path(folder))
        warm = 0
        while warm < _WARM_UP:
            warm += load(endpoint.url, requests, clients=_CLIENTS, seconds=_TURN_S).requests
        pids = worker_processes(endpoint.process)
        require_unshared(pids)
        sizes.append(proportional_bytes(pids))
        while answered[-1] < _REQUESTS:
            found = load(endpoint.url, requests, clients=_CLIENTS, seconds=_TURN_S)
            answered.append(answered[-1] + found.requests)
            require_unshared(pids)
            sizes.append(proportional_bytes(pids))
    figure = context.figures / "growth.png"
    line = Line(answered, [size / 1e6 for size in sizes])
    draw_lines({"": {"workers": line}}, figure, xlabel="requests answered", ylabel="MB")
    return TaskResult(
        task="growth",
        title="Memory over many requests",
        protocol=(
            f"Proportional set size of two workers together over {answered[-1]:,} requests of "
            f"{len(pictures)} pictures ({_SIDE} pixels wide) by {_CLIENTS} clients, after a "
            f"warm-up of {warm:,} requests."
        ),
        rows=[Row(_MEASURE, "Newshelf", [sizes[-1] / sizes[0] - 1])],
        goals=[Goal(_MEASURE, _GOAL)],
        figures={"memory over requests": figure},
        lower_is_better=[_MEASURE],
    )


def _shrunk(pictures: list[Path], work: Path) -> list[Path]:
    folder = work / "pictures" / f"{_SIDE}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in pictures:
        with Image.open(path) as picture:
            picture.resize((_SIDE, _SIDE * 3 // 4)).save(folder / path.name, "JPEG")
    return sorted(folder.glob("*.jpg"))
