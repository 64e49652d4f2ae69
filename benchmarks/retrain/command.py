"""`./run bench retrain`: tasks, context and command."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.records import versions
from benchmarks.report import Heading
from benchmarks.suite import Suite
from benchmarks.transfer.command import run_trained

TASKS: dict[str, str] = {
    "weeks": "benchmarks.retrain.weeks:run",
    "worse": "benchmarks.retrain.weeks:run_worse",
    "robots": "benchmarks.retrain.robots:run",
    "robots-retail": "benchmarks.retrain.robots:run_retail",
}

_INTRODUCTION = """\
What retraining gains in simulated weeks, whether its gate lets a worse version pass, and what \
robots among the shoppers can do to a retrained ranking. All but `robots-retail` draw a made-up \
shop. The vectors of products are fixed: this tests data, warm start, ranking and gate, not the \
encoder. A figure is the mean ± standard deviation over the seeds."""


SUITE = Suite(
    "retrain",
    TASKS,
    Heading("Retraining", _INTRODUCTION),
    lambda: versions("torch", "numpy", "scipy"),
)


def run(
    only: Sequence[str], *, seeds: int, data: Path | None, out: Path | None, console: Console
) -> int:
    """Run the tasks and write the report; see ``run_suite``.

    Raises:
        SettingsError: an unknown task, or ``data`` is not a folder.
    """
    return run_trained(SUITE, only, seeds=seeds, data=data, out=out, console=console)
