"""Suites of benchmark tasks: runs them, stores their results and renders the report."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from rich.console import Console

from benchmarks.records import (
    BenchmarkRecord,
    Failure,
    hardware,
    now,
    read_records,
    shown_path,
    write_record,
)
from benchmarks.report import Heading, print_result, write_report
from benchmarks.results import TaskResult
from newshelf.errors import NewshelfError, SettingsError
from newshelf.pipeline.workspace import ROOT, WORKSPACES


@dataclass(frozen=True)
class Suite:
    """One benchmark: ``./run bench NAME``."""

    name: str
    tasks: Mapping[str, str]
    """Task → ``module:function``; the function maps the suite's context to a ``TaskResult``."""
    heading: Heading
    versions: Callable[[], Mapping[str, str]]
    """Return the versions of what the figures depend on."""
    on_request: Sequence[str] = ()
    """Tasks that are run only when they are named."""

    @property
    def default_report(self) -> Path:
        """The report in the documentation."""
        return ROOT / "docs" / "benchmarks" / f"{self.name}.md"

    def figures(self, report: Path) -> Path:
        """Return the folder of the report's figures; create it."""
        folder = report.with_suffix("") / "figures"
        if report == self.default_report:
            folder = ROOT / "docs" / "images" / "benchmarks" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def work(self) -> Path:
        """Return the folder of caches, models and environments; create it."""
        # The first suite had no folder of its own; its caches are worth keeping.
        folder = WORKSPACES / "bench" / ("" if self.name == "transfer" else self.name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def chosen(self, only: Sequence[str]) -> list[str]:
        """Return the tasks to run in the suite's order.

        When ``only`` is empty, those are all but the ones that are run on request.

        Raises:
            SettingsError: there is no such task.
        """
        unknown = [name for name in only if name not in self.tasks]
        if unknown:
            raise SettingsError(
                f"--only {' '.join(unknown)}: there is no such task; the tasks are "
                f"{', '.join(self.tasks)}"
            )
        wanted = only or set(self.tasks).difference(self.on_request)
        return [name for name in self.tasks if name in wanted]

    def command(self, only: Sequence[str], report: Path, **options: Any) -> str:
        """Return the command line that repeats a run; options that are None are left out."""
        words = [f"./run bench {self.name}", *(f"--only {name}" for name in only)]
        words += [
            f"--{name.replace('_', '-')} {_option(value)}"
            for name, value in options.items()
            if value is not None
        ]
        words += [f"--out {shown_path(report)}"] if report != self.default_report else []
        return " ".join(words)


def _option(value: Any) -> str:
    if isinstance(value, Path):
        return shown_path(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else f"{value:g}"


def run_suite(
    suite: Suite,
    only: Sequence[str],
    out: Path | None,
    make_context: Callable[[Path], Any],
    *,
    options: Mapping[str, Any],
    seeds: Sequence[int],
    console: Console,
) -> int:
    """Run tasks; store each result as ``NAME/TASK.json`` next to the report.

    A task that fails does not stop the others. The report is rendered after every task, from
    the last result of each.

    Args:
        suite: the tasks.
        only: tasks to run; see ``Suite.chosen``.
        out: the report; None is that of the documentation.
        make_context: makes the tasks' argument from the path of the report.
        options: of the command line that repeats the run.
        seeds: one per repetition.
        console: receives each result.

    Returns:
        1 if a task failed, otherwise 0.

    Raises:
        SettingsError: there is no such task, or a file in the folder of results is not a result
            of this benchmark.
    """
    tasks = suite.chosen(only)
    report = suite.default_report if out is None else out.resolve()
    command, context = suite.command(only, report, **options), make_context(report)
    folder = report.with_suffix("")
    # A damaged result is reported now, not after the tasks before it.
    read_records(folder, suite.tasks)
    failed = []
    for number, task in enumerate(tasks, start=1):
        console.rule(f"{task} ({number} of {len(tasks)})", align="left")
        before = read_records(folder, [task]).get(task, BenchmarkRecord(task))
        blank = BenchmarkRecord(
            task=task,
            date=now(),
            command=command,
            seeds=tuple(seeds),
            revision=suite.heading.revision(task),
        )
        record = _measure(suite, blank, before, context, report, console)
        if record.failure is not None:
            failed.append(task)
        write_record(record, folder)
        write_report(read_records(folder, suite.tasks), report, suite.heading)
    console.print(f"report: {report}", markup=False)
    if failed:
        console.print(f"failed: {', '.join(failed)}", markup=False)
    return 1 if failed else 0


def _measure(
    suite: Suite,
    blank: BenchmarkRecord,
    before: BenchmarkRecord,
    context: Any,
    report: Path,
    console: Console,
) -> BenchmarkRecord:
    """Return ``blank`` with the task's result, or ``before`` with its failure."""
    started = time.monotonic()
    try:
        result: TaskResult = resolve_name(suite.tasks[blank.task])(context)
        kept = replace(result, figures=_linked(result, report.parent))
    except Exception as error:
        if not isinstance(error, NewshelfError):
            # An internal error of the task: its author needs the traceback.
            console.print_exception()
        message = f"{type(error).__name__}: {error}"
        console.print(f"{blank.task} failed: {message}", style="red", markup=False)
        return replace(before, failure=Failure(blank.date, blank.command, message))
    print_result(result, suite.heading.average, console)
    return replace(
        blank,
        result=kept,
        seconds=round(time.monotonic() - started, 1),
        versions=suite.versions(),
        hardware=hardware(),
    )


def _linked(result: TaskResult, folder: Path) -> dict[str, Path]:
    """Return the figures relative to the report.

    Raises:
        FileNotFoundError: a figure was promised and not drawn.
    """
    for path in result.figures.values():
        if not path.is_file():
            raise FileNotFoundError(f"figure {path.name} was not drawn")
    return {
        caption: Path(os.path.relpath(path, folder)) for caption, path in result.figures.items()
    }
