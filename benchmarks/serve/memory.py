"""Memory of TorchServe's workers: of a second one, and over many requests."""

import os
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import psutil
from PIL import Image

from benchmarks.report import markdown_table
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.command import ServeContext
from benchmarks.serve.contender import wait_for_answer
from benchmarks.serve.models import MODELS, SMALL, Model, make_model, make_pictures
from benchmarks.serve.torchserve import Layout, newshelf_encoder
from benchmarks.serve.wrk import load
from newshelf.report.plots import Line, draw_lines
from newshelf.server.process import ProcessRef, members

_OURS = ("model_service_worker.py", "handlers.worker_fork")
"""What TorchServe starts, and the process that loads a model and forks its workers."""
_HEAVY = ("libtorch", "onnxruntime", "openvino")


def worker_processes(server: ProcessRef) -> list[int]:
    """Return the ids of a TorchServe's processes that hold a model or launch one that does."""
    found = []
    for process in members(server):
        try:
            if any(word.endswith(_OURS) for word in process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return sorted(found)


def proportional_bytes(pids: Sequence[int]) -> int:
    """Return the sum of proportional set sizes: a page that n processes share counts 1/n each.

    Raises:
        BenchmarkError: the system has no such figure (Linux has it from 4.14 on).
    """
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    path = Path("/proc") / str(pid) / "smaps_rollup"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read ({error.strerror}): use Linux") from error
    values = {line.split()[0]: line.split()[1] for line in lines[1:]}
    return int(values["Pss:"]) * 1024


def require_unshared(workers: Sequence[int]) -> None:
    """Refuse to measure while another process has loaded the workers' libraries.

    It would share their pages, and the first worker would seem smaller than it is.

    Raises:
        BenchmarkError: with the other processes' ids.
    """
    ours = Path(sysconfig.get_path("purelib")).resolve()
    others = [
        process.pid
        for process in psutil.process_iter()
        if process.pid not in workers and _has_loaded(process.pid, ours)
    ]
    if os.getpid() in others:
        raise BenchmarkError(
            "this process has loaded the workers' libraries: measure memory alone, with "
            f"`./run bench serve --only memory` ({', '.join(sorted(_loaded_modules()))})"
        )
    if others:
        raise BenchmarkError(
            f"the processes {', '.join(map(str, others))} have loaded the workers' libraries, and "
            "would share their memory: end them, then measure again"
        )


def _loaded_modules() -> set[str]:
    return {"torch", "onnxruntime", "openvino"} & set(sys.modules)


def _has_loaded(pid: int, packages: Path) -> bool:
    try:
        text = (Path("/proc") / str(pid) / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # It has ended, or belongs to another user.
        return False
    return any(
        str(packages) in line and any(name in line for name in _HEAVY) for line in text.splitlines()
    )


_SHARE_GOAL = 0.40
_MEGABYTE = 1e6
_CLIENTS = 32
_BATCH = 8


def run_memory(context: ServeContext) -> TaskResult:
    """Measure one worker and two, after the same load."""
    rows, lines = [], []
    for name in MODELS:
        model = make_model(name, context.work, context.catalog, context.console)
        pairs = [
            (_bytes(model, 1, context), _bytes(model, 2, context)) for _ in range(context.rounds)
        ]
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
        goals=[Goal(_measure(name), _SHARE_GOAL) for name in MODELS],
        details=markdown_table(header, "lrrr", lines),
        lower_is_better=[_measure(name) for name in MODELS],
    )


def _measure(name: str) -> str:
    return f"{name}: the second worker's share of the first's"


def _bytes(model: Model, workers: int, context: ServeContext) -> int:
    pictures = make_pictures(context.work, SMALL, context.catalog)
    # Only the number of workers differs.
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


_GROWTH_GOAL = 0.02
_REQUESTS = 100_000
_WARM_UP = 5_000
_TURN_S = 10
_SIDE = 64
_MEASURE = "growth over 10⁵ requests, encoder (lite0)"


def run_growth(context: ServeContext) -> TaskResult:
    """Measure one server until it has answered ``_REQUESTS`` after the warm-up."""
    model = make_model("lite0", context.work, context.catalog, context.console)
    # Small pictures are quicker to decode; the forward is the same.
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
        goals=[Goal(_MEASURE, _GROWTH_GOAL)],
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
