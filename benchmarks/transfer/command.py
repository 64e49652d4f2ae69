"""``./run bench transfer``: run the tasks, print their tables, render the report."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmarks.transfer.context import Context
from benchmarks.transfer.environment import hardware, shown_path, versions
from benchmarks.transfer.record import Failure, Record, now, read_records, write_record
from benchmarks.transfer.report import write_report
from benchmarks.transfer.result import TaskResult
from benchmarks.transfer.table import print_result
from benchmarks.transfer.tasks import TASKS, load_task
from newshelf.config import Settings
from newshelf.errors import NewshelfError, SettingsError
from newshelf.pipeline.workspace import ROOT, WORKSPACES

__all__ = ["REPORT", "Options", "run"]

REPORT = ROOT / "docs" / "benchmarks" / "transfer.md"
_FIGURES = ROOT / "docs" / "images" / "benchmarks" / "transfer"
_DATA = ROOT.parent / "shared" / "data"


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
    tasks = _chosen(options.only)
    data = _data(options.data)
    if options.kept_back is not None and not options.kept_back.is_dir():
        raise SettingsError(f"--kept-back {options.kept_back} is not a folder")
    out = options.out.resolve()
    folder = out.with_suffix("")
    figures = _FIGURES if out == REPORT else folder / "figures"
    # A damaged result is told now, not after the tasks before it.
    read_records(folder, TASKS)
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
    failed = []
    for number, task in enumerate(tasks, start=1):
        console.rule(f"{task} ({number} of {len(tasks)})", align="left")
        before = read_records(folder, {task: ""}).get(task, Record(task))
        record = _measure(task, before, context, out, options.command())
        if record.failure is not None:
            failed.append(task)
        write_record(record, folder)
        write_report(read_records(folder, TASKS), out)
    console.print(f"report: {out}", markup=False)
    if failed:
        console.print(f"failed: {', '.join(failed)}", markup=False)
    return 1 if failed else 0


def _measure(task: str, before: Record, context: Context, out: Path, command: str) -> Record:
    date, started = now(), time.monotonic()
    try:
        result = load_task(task)(context)
        kept = replace(result, figures=_linked(result, out.parent))
    except Exception as error:
        if not isinstance(error, NewshelfError):
            # A mistake in the task itself: its author needs the place.
            context.console.print_exception()
        message = f"{type(error).__name__}: {error}"
        context.console.print(f"{task} failed: {message}", style="red", markup=False)
        return replace(before, failure=Failure(date, command, message))
    print_result(result, context.console)
    return Record(
        task=task,
        result=kept,
        date=date,
        command=command,
        seeds=context.seeds,
        seconds=round(time.monotonic() - started, 1),
        versions=versions(),
        hardware=hardware(),
    )


def _linked(result: TaskResult, folder: Path) -> dict[str, Path]:
    """The figures relative to the report.

    Raises:
        FileNotFoundError: a figure was promised and not drawn.
    """
    for path in result.figures.values():
        if not path.is_file():
            raise FileNotFoundError(f"figure {path.name} was not drawn")
    return {
        caption: Path(os.path.relpath(path, folder)) for caption, path in result.figures.items()
    }


def _chosen(only: Sequence[str]) -> list[str]:
    """The tasks to run, in the order of ``TASKS``."""
    unknown = [name for name in only if name not in TASKS]
    if unknown:
        raise SettingsError(
            f"--only {' '.join(unknown)}: there is no such task; the tasks are {', '.join(TASKS)}"
        )
    return [name for name in TASKS if not only or name in only]


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
