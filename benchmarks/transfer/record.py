"""The last result of each task as JSON, so that one task can be measured anew alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.errors import SettingsError
from newshelf.files import read_json, write_json

__all__ = ["Failure", "Record", "now", "read_records", "write_record"]


def now() -> str:
    """UTC, ISO 8601, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True)
class Failure:
    """A run that gave no result."""

    date: str
    command: str
    error: str


@dataclass(frozen=True)
class Record:
    """What is known of one task. A failed run leaves the result before it in place."""

    task: str
    result: TaskResult | None = None
    """Its figures are relative to the report's folder."""
    date: str = ""
    command: str = ""
    seeds: tuple[int, ...] = ()
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""
    revision: int = 1
    """Of the task's code, from ``Heading.revisions``."""
    failure: Failure | None = None
    """Of the last run, when it failed."""


def write_record(record: Record, folder: Path) -> None:
    """Write ``TASK.json``, aside and renamed."""
    table = asdict(record)
    if record.result is not None:
        table["result"]["figures"] = {
            caption: path.as_posix() for caption, path in record.result.figures.items()
        }
    write_json(folder / f"{record.task}.json", table)


def read_records(folder: Path, tasks: Mapping[str, str]) -> dict[str, Record]:
    """The records of ``tasks``, in their order; those without a file are left out.

    Raises:
        SettingsError: a file is no record.
    """
    records = {}
    for task in tasks:
        path = folder / f"{task}.json"
        if path.is_file():
            try:
                records[task] = _record(read_json(path))
            except (ValueError, TypeError, KeyError) as error:
                raise SettingsError(
                    f"{path} is not a result of this benchmark ({error}): remove it, and "
                    f"measure again with --only {task}"
                ) from error
    return records


def _record(table: dict[str, Any]) -> Record:
    failure, result = table.pop("failure"), table.pop("result")
    table["seeds"] = tuple(table["seeds"])
    return Record(
        **table,
        result=None if result is None else _result(result),
        failure=None if failure is None else Failure(**failure),
    )


def _result(table: dict[str, Any]) -> TaskResult:
    rows, goals, figures = table.pop("rows"), table.pop("goals"), table.pop("figures")
    return TaskResult(
        **table,
        rows=[Row(**row) for row in rows],
        goals=[Goal(**goal) for goal in goals],
        figures={caption: Path(path) for caption, path in figures.items()},
    )
