"""`./run bench shelf`: tasks, context and command."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import versions
from benchmarks.report import Heading
from benchmarks.suite import Suite, run_suite

TASKS: dict[str, str] = {
    "scale": "benchmarks.shelf.scale:run",
    "live": "benchmarks.shelf.live:run",
    "embed": "benchmarks.shelf.embeddings:run",
}

_INTRODUCTION = """\
What the live shelf costs on the machine below. A figure is the median of the rounds ± their \
standard deviation."""


@dataclass(frozen=True)
class ShelfContext:
    """Argument of every task."""

    work: Path
    """A folder for drawn catalogues and servers."""
    rounds: int
    """Repetitions, each in fresh processes."""
    console: Console


SUITE = Suite(
    "shelf",
    TASKS,
    Heading("The live shelf", _INTRODUCTION, repeated="round", average="median"),
    lambda: versions("numpy", "scipy", "faiss-cpu"),
)


def run(only: Sequence[str], *, rounds: int, out: Path | None, console: Console) -> int:
    """Run the tasks and write the report; see ``run_suite``.

    Raises:
        SettingsError: an unknown task.
    """
    return run_suite(
        SUITE,
        only,
        out,
        lambda _: ShelfContext(SUITE.work(), rounds, console),
        options={"rounds": rounds},
        seeds=range(1, rounds + 1),
        console=console,
    )
