"""`./run bench serve`: tasks, context and command."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import versions
from benchmarks.report import Heading
from benchmarks.serve.cpu import mark_own_processes
from benchmarks.serve.wrk import require_wrk
from benchmarks.suite import Suite, run_suite
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT

TASKS: dict[str, str] = {
    # These two first, before this process has loaded what the workers load.
    "memory": "benchmarks.serve.memory:run_memory",
    "growth": "benchmarks.serve.memory:run_growth",
    "resnet50": "benchmarks.serve.encoder:run_resnet50",
    "lite0": "benchmarks.serve.encoder:run_lite0",
    "recommender": "benchmarks.serve.recommender:run",
    "search": "benchmarks.serve.search:run",
    "search-10m": "benchmarks.serve.search_large:run",
    "cache": "benchmarks.serve.sweeps:run_cache",
    "clients": "benchmarks.serve.sweeps:run_clients",
    "batches": "benchmarks.serve.sweeps:run_batches",
    "layouts": "benchmarks.serve.sweeps:run_layouts",
    "ceiling": "benchmarks.serve.noop:run",
}

_ON_REQUEST = ("search-10m",)
"""It takes half an hour and 26 GB of disk."""


@dataclass(frozen=True)
class ServeContext:
    """Argument of every task."""

    catalog: Path | None
    """The catalogue whose pictures are sent; None draws a shop."""
    work: Path
    """Models, environments and the folders of servers."""
    figures: Path
    """Folder of the plots."""
    rounds: int
    """Turns of each contender."""
    seconds: float
    """Length of one load."""
    console: Console

    @property
    def warm_up_s(self) -> float:
        """Length of the load before the first that counts: caches, pools and Java are cold.

        TorchScript takes seconds for its first requests of each batch size.
        """
        return max(5.0, self.seconds)


_DATA = ROOT.parent / "shared" / "data" / "home"
_LIBRARIES = (
    "torchserve",
    "torch",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "pillow",
    "cykooz-resizer",
)
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_PEERS = ("fastapi", "litserve", "ray", "bentoml", "onnxruntime")

_INTRODUCTION = """\
What serving reaches on the machine below, compared with its alternatives. Every server \
is started in turn, on the same cores as the client, which is wrk (written in C, one thread, \
each connection sends its next request when the last is answered). Contenders take turns, A B C, \
A B C, so that whatever else the machine does meets them all; a figure is the median of the \
rounds ± their standard deviation. Before it is timed, each contender's answers are compared \
with the float32 model's (cosine ≥ 0.99), and a load with an answer that is not 200 and whole is \
no result."""


def _versions() -> dict[str, str]:
    """Return the versions of Newshelf's libraries and the pinned ones of the peers."""
    pins = dict(
        line.split("==")
        for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    plain = {name.partition("[")[0]: pin.strip() for name, pin in pins.items()}
    return versions(*_LIBRARIES) | {f"peers' {name}": plain[name] for name in _PEERS}


SUITE = Suite(
    "serve",
    TASKS,
    Heading("Serving", _INTRODUCTION, repeated="round", average="median"),
    _versions,
    _ON_REQUEST,
)


def run(
    only: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    cores: tuple[int, ...] | None,
    data: Path | None,
    out: Path | None,
    console: Console,
) -> int:
    """Run the tasks and write the report; see ``run_suite``.

    Without ``only``, all are run but those that take half an hour.
    ``cores`` are those that servers and client share; None takes the first two.

    Raises:
        SettingsError: an unknown task, core or folder.
        BenchmarkError: wrk is not installed.
    """
    SUITE.chosen(only)
    require_wrk()
    _pin(cores or ())
    mark_own_processes()
    catalog = _catalog(data)
    return run_suite(
        SUITE,
        only,
        out,
        lambda report: ServeContext(
            catalog=catalog,
            work=SUITE.work(),
            figures=SUITE.figures(report),
            rounds=rounds,
            seconds=seconds,
            console=console,
        ),
        options={"rounds": rounds, "seconds": seconds, "cores": cores, "data": data},
        seeds=range(1, rounds + 1),
        console=console,
    )


def _pin(cores: Sequence[int]) -> None:
    """Pin this process and its children to ``cores``; to the first two when empty.

    Raises:
        SettingsError: a core does not exist, or the system cannot pin.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SettingsError("contenders are pinned to cores, which this system cannot: use Linux")
    there = sorted(os.sched_getaffinity(0))
    missing = sorted(set(cores) - set(there))
    if missing:
        raise SettingsError(
            f"--cores {','.join(map(str, cores))}: of these {missing} cannot be used here; "
            f"there are {there}"
        )
    os.sched_setaffinity(0, set(cores) or set(there[:2]))


def _catalog(given: Path | None) -> Path | None:
    if given is not None and not given.is_dir():
        raise SettingsError(f"--data {given} is not a folder")
    if given is not None:
        return given
    return _DATA if _DATA.is_dir() else None
