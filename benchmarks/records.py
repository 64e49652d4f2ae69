"""Stored records: the last result of each task, with versions, hardware and command."""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results import Goal, Row, TaskResult
from newshelf import __version__
from newshelf.errors import SettingsError
from newshelf.files import read_json, write_json
from newshelf.pipeline.workspace import ROOT

_CPU_INFO = Path("/proc/cpuinfo")
_GIB = 1 << 30
_EXTENSIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_tile": "AMX",
}
"""Linux's flag → the usual name. From VNNI on, int8 and bfloat16 are several times as fast."""


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of Newshelf, Python and those of ``libraries`` that are installed."""
    found = {"newshelf": newshelf_version(), "python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """Return CPU, matrix extensions, cores and memory; nothing that identifies the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / _GIB
    return f"{_cpu()}, {cores} cores, {memory:.0f} GiB memory"


def commit() -> str | None:
    """Return the commit of the sources, with ``+`` if they differ from it; None without git."""
    head = _git("rev-parse", "--short", "HEAD")
    if head is None:
        return None
    # Results in docs change with every task; they are not sources.
    changed = _git("status", "--porcelain", "--", "*.py", "*.toml", "requirements.lock")
    return f"{head}+" if changed else head


Values = dict[str, Any]
"""What is measured at once, as JSON has it."""


def measured_once(folder: Path, name: str, measure: Callable[[], Values], data: Path) -> Values:
    """Return the values of ``measure``, kept for unchanged sources of one commit and ``data``."""
    sources = commit()
    if sources is None or sources.endswith("+"):
        return measure()
    run = hashlib.sha256(f"{sources} {data.resolve()}".encode()).hexdigest()[:12]
    path = folder / f"{name}-{run}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measure())
    values: Values = read_json(path)
    return values


def shown_path(path: Path) -> str:
    """Return a path relative to the repository; of a path far from it, only the name."""
    relative = Path(os.path.relpath(path, ROOT))
    return f"…/{path.name}" if relative.parts[:2] == ("..", "..") else str(relative)


def newshelf_version() -> str:
    """Return the version, with the commit of the sources if git knows it."""
    found = commit()
    return f"{__version__} ({found})" if found else __version__


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    words = [git, "-C", str(ROOT), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    flags = (_cpu_info("flags") or "").split()
    extensions = dict.fromkeys(word for flag, word in _EXTENSIONS.items() if flag in flags)
    return f"{name} with {', '.join(extensions)}" if extensions else name


def _cpu_info(wanted: str) -> str | None:
    """Return a field of ``/proc/cpuinfo``, for the first core."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == wanted:
                return value.strip()
    return None


def now() -> str:
    """Return the time in UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True)
class Failure:
    """A run without a result."""

    date: str
    command: str
    error: str


@dataclass(frozen=True)
class BenchmarkRecord:
    """Last result of one task. A failed run leaves the earlier result in place."""

    task: str
    result: TaskResult | None = None
    """Its figures are relative to the folder of the report."""
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


def write_record(record: BenchmarkRecord, folder: Path) -> None:
    """Write ``TASK.json`` atomically."""
    table = asdict(record)
    if record.result is not None:
        table["result"]["figures"] = {
            caption: path.as_posix() for caption, path in record.result.figures.items()
        }
    write_json(folder / f"{record.task}.json", table)


def read_records(folder: Path, tasks: Iterable[str]) -> dict[str, BenchmarkRecord]:
    """Return the records of ``tasks``, in their order; tasks without a file are left out.

    Raises:
        SettingsError: a file is not a record.
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


def _record(table: dict[str, Any]) -> BenchmarkRecord:
    failure, result = table.pop("failure"), table.pop("result")
    table["seeds"] = tuple(table["seeds"])
    return BenchmarkRecord(
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
