"""Runs the tasks of one benchmark, keeps what they found, and renders its report."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from rich.console import Console

from benchmarks.records import Failure, Record, hardware, now, read_records, write_record
from benchmarks.report import Heading, print_result, write_report
from benchmarks.results import TaskResult
from newshelf.errors import NewshelfError, SettingsError

__all__ = ["Suite", "chosen", "run_suite"]


@dataclass(frozen=True)
class Suite:
    """One benchmark: ``./run bench NAME``."""

    tasks: Mapping[str, str]
    """Task → ``module:function``; the function maps the context to a ``TaskResult``."""
    heading: Heading
    versions: Callable[[], Mapping[str, str]]
    """Of what the figures depend on."""


def chosen(suite: Suite, only: Sequence[str]) -> list[str]:
    """The tasks to run, in the suite's order; all when ``only`` is empty.

    Raises:
        SettingsError: there is no such task.
    """
    unknown = [name for name in only if name not in suite.tasks]
    if unknown:
        raise SettingsError(
            f"--only {' '.join(unknown)}: there is no such task; the tasks are "
            f"{', '.join(suite.tasks)}"
        )
    return [name for name in suite.tasks if not only or name in only]


def run_suite(
    suite: Suite,
    tasks: Sequence[str],
    context: Any,
    *,
    out: Path,
    command: str,
    seeds: tuple[int, ...],
    console: Console,
) -> int:
    """Measure, and keep what was measured: ``NAME/TASK.json`` beside the report.

    A task that fails does not stop the others. The report is written after every task, from
    the results of all that were ever measured for it.

    Args:
        suite: the benchmark.
        tasks: from ``chosen``.
        context: what every task is given.
        out: the report.
        command: the line that asks for this again.
        seeds: one per repetition.
        console: where tables go.

    Returns:
        0, or 1 when a task failed.

    Raises:
        SettingsError: a file beside the report is no result of this benchmark.
    """
    folder = out.with_suffix("")
    # A damaged result is told now, not after the tasks before it.
    read_records(folder, suite.tasks)
    failed = []
    for number, task in enumerate(tasks, start=1):
        console.rule(f"{task} ({number} of {len(tasks)})", align="left")
        record = _measure(suite, task, context, out, command, seeds, console)
        if record.failure is not None:
            failed.append(task)
        write_record(record, folder)
        write_report(read_records(folder, suite.tasks), out, suite.heading)
    console.print(f"report: {out}", markup=False)
    if failed:
        console.print(f"failed: {', '.join(failed)}", markup=False)
    return 1 if failed else 0


def _measure(
    suite: Suite,
    task: str,
    context: Any,
    out: Path,
    command: str,
    seeds: tuple[int, ...],
    console: Console,
) -> Record:
    before = read_records(out.with_suffix(""), {task: ""}).get(task, Record(task))
    date, started = now(), time.monotonic()
    try:
        result: TaskResult = resolve_name(suite.tasks[task])(context)
        kept = replace(result, figures=_linked(result, out.parent))
    except Exception as error:
        if not isinstance(error, NewshelfError):
            # A mistake in the task itself: its author needs the place.
            console.print_exception()
        message = f"{type(error).__name__}: {error}"
        console.print(f"{task} failed: {message}", style="red", markup=False)
        return replace(before, failure=Failure(date, command, message))
    print_result(result, console)
    return Record(
        task=task,
        result=kept,
        date=date,
        command=command,
        seeds=seeds,
        seconds=round(time.monotonic() - started, 1),
        versions=suite.versions(),
        hardware=hardware(),
        revision=suite.heading.revision(task),
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
