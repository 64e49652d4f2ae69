"""`./run bench retrain`: tasks, context and command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import Values, measured_once, versions
from benchmarks.report import Heading
from benchmarks.suite import Suite, run_suite
from newshelf.config import Settings
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT

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


@dataclass(frozen=True)
class RetrainContext:
    """Argument of every task."""

    data: Path
    """A folder of catalogues; only ``robots-retail`` reads one."""
    work: Path
    """Measured parts of an interrupted run, and cached features."""
    figures: Path
    seeds: tuple[int, ...]
    console: Console
    settings: Settings

    def measured(self, name: str, measure: Callable[[], Values]) -> Values:
        """Return the values of a part, and keep them: a run that was interrupted resumes."""
        return measured_once(self.work / "parts", name, measure)


def run(
    only: Sequence[str],
    *,
    seeds: int,
    data: Path | None,
    out: Path | None,
    settings: Settings,
    console: Console,
) -> int:
    """Run the tasks (all without ``only``) and write the report; see ``benchmarks.suite``.

    Raises:
        SettingsError: an unknown task, or ``data`` is not a folder.
    """
    heading = Heading("Retraining", _INTRODUCTION)
    suite = Suite("retrain", TASKS, heading, lambda: versions("torch", "numpy", "scipy"))
    tasks, report = suite.chosen(only), suite.report(out)
    if data is not None and not data.is_dir():
        raise SettingsError(f"--data {data} is not a folder")
    context = RetrainContext(
        data=data or ROOT.parent / "shared" / "data",
        work=suite.work(),
        figures=suite.figures(report),
        seeds=tuple(range(seeds)),
        console=console,
        settings=settings,
    )
    return run_suite(
        suite,
        tasks,
        context,
        report=report,
        command=suite.command(only, report, seeds=seeds, data=data),
        seeds=context.seeds,
        console=console,
    )
