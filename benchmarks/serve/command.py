"""`./run bench serve`: tasks, context and command."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from benchmarks.records import newshelf_version, shown_path
from benchmarks.report import Heading
from benchmarks.serve.cpu import mark_own_processes
from benchmarks.serve.wrk import require_wrk
from benchmarks.suite import Suite, chosen, run_suite
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT, WORKSPACES

TASKS: dict[str, str] = {
    # These two first, before this process has loaded what the workers load.
    "memory": "benchmarks.serve.memory:run_memory",
    "growth": "benchmarks.serve.memory:run_growth",
    "resnet50": "benchmarks.serve.encoder:run_resnet50",
    "lite0": "benchmarks.serve.encoder:run_lite0",
    "recommender": "benchmarks.serve.recommender:run",
    "search": "benchmarks.serve.search:run",
    "cache": "benchmarks.serve.sweeps:run_cache",
    "clients": "benchmarks.serve.sweeps:run_clients",
    "batches": "benchmarks.serve.sweeps:run_batches",
    "layouts": "benchmarks.serve.sweeps:run_layouts",
    "ceiling": "benchmarks.serve.noop:run",
}
"""Task name → ``module:function``."""


@dataclass(frozen=True)
class Context:
    """One run of the benchmark."""

    catalog: Path | None
    """Whose pictures are sent; None draws a shop."""
    work: Path
    """Models, environments and servers' folders."""
    figures: Path
    """Where plots go."""
    rounds: int
    """Turns of each contender."""
    seconds: float
    """Of one load."""
    console: Console

    @property
    def warm_up_s(self) -> float:
        """Of the load before the first that counts, which finds caches, pools and Java cold.

        TorchScript takes seconds over its first requests of each batch size.
        """
        return max(5.0, self.seconds)


REPORT = ROOT / "docs" / "benchmarks" / "serve.md"
_FIGURES = ROOT / "docs" / "images" / "benchmarks" / "serve"
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
What serving reaches on the machine below, beside what a user would pick instead. Every server \
is started in turn, on the same cores as the client, which is wrk (written in C, one thread, \
each connection sends its next request when the last is answered). Contenders take turns, A B C, \
A B C, so that whatever else the machine does meets them all; a figure is the median of the \
rounds ± their standard deviation. Before it is timed, each contender's answers are compared \
with the float32 model's (cosine ≥ 0.99), and a load with an answer that is not 200 and whole is \
no result."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    only: Sequence[str] = ()
    """Tasks to run; all when empty."""
    rounds: int = 3
    seconds: float = 10.0
    cores: Sequence[int] = ()
    """Those that servers and client share; the first two when empty."""
    data: Path | None = None
    """A catalogue with pictures."""
    out: Path = REPORT

    def command(self) -> str:
        """The line that asks for this again."""
        words = ["./run bench serve"]
        words += [f"--only {name}" for name in self.only]
        words += [f"--rounds {self.rounds} --seconds {self.seconds:g}"]
        words += [f"--cores {','.join(map(str, self.cores))}"] if self.cores else []
        words += [f"--data {shown_path(self.data)}"] if self.data is not None else []
        words += [f"--out {shown_path(self.out)}"] if self.out.resolve() != REPORT else []
        return " ".join(words)


def run(options: Options, console: Console) -> int:
    """Measure the tasks and write the report; see ``benchmarks.suite``.

    Returns:
        0, or 1 when a task failed.

    Raises:
        SettingsError: an unknown task, a core or a folder that is not there.
        BenchmarkError: wrk is not installed.
    """
    suite = Suite(
        TASKS,
        Heading("Serving", _INTRODUCTION, repeated="round", average="median"),
        _versions,
    )
    tasks = chosen(suite, options.only)
    require_wrk()
    _pin(options.cores)
    mark_own_processes()
    out = options.out.resolve()
    figures = _FIGURES if out == REPORT else out.with_suffix("") / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    context = Context(
        catalog=_catalog(options.data),
        work=WORKSPACES / "bench" / "serve",
        figures=figures,
        rounds=options.rounds,
        seconds=options.seconds,
        console=console,
    )
    return run_suite(
        suite,
        tasks,
        context,
        out=out,
        command=options.command(),
        seeds=tuple(range(1, options.rounds + 1)),
        console=console,
    )


def _pin(cores: Sequence[int]) -> None:
    """Keep this process and all that it starts on two cores, or on those given.

    Raises:
        SettingsError: one of them is not there, or the system cannot pin.
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


def _versions() -> dict[str, str]:
    """Newshelf's libraries, and the peers' as they are pinned."""
    found = {"newshelf": newshelf_version(), "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    pins = dict(
        line.split("==")
        for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    plain = {name.partition("[")[0]: pin.strip() for name, pin in pins.items()}
    return found | {f"peers' {name}": plain[name] for name in _PEERS}
