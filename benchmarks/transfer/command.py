"""``./run bench transfer``: run the tasks, print their tables, render the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.suite import Suite, chosen, run_suite
from benchmarks.transfer.context import Context
from benchmarks.transfer.environment import shown_path, versions
from benchmarks.transfer.report import Heading
from benchmarks.transfer.tasks import REVISIONS, TASKS
from newshelf.config import Settings
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT, WORKSPACES

__all__ = ["REPORT", "Options", "run"]

REPORT = ROOT / "docs" / "benchmarks" / "transfer.md"
_FIGURES = ROOT / "docs" / "images" / "benchmarks" / "transfer"
_DATA = ROOT.parent / "shared" / "data"
_SUITE = Suite(
    TASKS,
    Heading(
        "Transfer",
        """\
Which method of transfer learning helps where. Every method meets the baselines that a user \
would have without it, on the same data, features and test cases, and each figure is the mean \
± standard deviation over the seeds. A goal that was not reached says so, and the notes of its \
task say what was tried. Where a task compares several methods of its own, a goal is judged by the \
one that was chosen on data that no seed tests on. *Outdated* marks figures from before a change \
of their task.""",
        revisions=REVISIONS,
    ),
    versions,
)


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    only: Sequence[str] = ()
    """Tasks to run; all when empty."""
    seeds: int = 3
    data: Path | None = None
    """A folder of catalogues; None looks beside the repository."""
    kept_back: Path | None = None
    out: Path = REPORT

    def command(self) -> str:
        """The line that asks for this again."""
        words = ["./run bench transfer"]
        words += [f"--only {name}" for name in self.only]
        words += [f"--seeds {self.seeds}"]
        given = {"--data": self.data, "--kept-back": self.kept_back}
        words += [f"{name} {shown_path(path)}" for name, path in given.items() if path is not None]
        words += [f"--out {shown_path(self.out)}"] if self.out.resolve() != REPORT else []
        return " ".join(words)


def run(options: Options, settings: Settings, console: Console) -> int:
    """Measure, and keep what was measured: ``NAME/TASK.json`` beside the report, and figures.

    A task that fails does not stop the others. The report is written after every task, from
    the results of all that were ever measured for it.

    Returns:
        0, or 1 when a task failed.

    Raises:
        SettingsError: an unknown task, or a folder that is not there.
    """
    tasks = chosen(_SUITE, options.only)
    data = _data(options.data)
    if options.kept_back is not None and not options.kept_back.is_dir():
        raise SettingsError(f"--kept-back {options.kept_back} is not a folder")
    out = options.out.resolve()
    folder = out.with_suffix("")
    figures = _FIGURES if out == REPORT else folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    context = Context(
        data=data,
        kept_back=options.kept_back,
        work=WORKSPACES / "bench",
        figures=figures,
        seeds=tuple(range(options.seeds)),
        console=console,
        settings=settings,
    )
    return run_suite(
        _SUITE,
        tasks,
        context,
        out=out,
        command=options.command(),
        seeds=context.seeds,
        console=console,
    )


def _data(given: Path | None) -> Path:
    data = given or _DATA
    if not data.is_dir():
        raise SettingsError(
            f"--data {given} is not a folder"
            if given
            else "no catalogues to measure on: pass --data DIR, a folder with one catalogue each "
            "(docs/catalog.md) for the data sets that the tasks name"
        )
    return data
