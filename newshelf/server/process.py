"""Processes of a server: start, stop, signals, log files, progress of a start.

A started process leads a session of its own and carries a random mark in its environment, which
its descendants inherit. Stopping goes by both, so that a process id which the system has reused
is left alone.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil
from pydantic import BaseModel, ConfigDict

from newshelf.config import LogSettings
from newshelf.errors import ServerError
from newshelf.files import write_private

MARK = "NEWSHELF_SESSION"
"""Environment variable with the mark of the session."""
LOG = "NEWSHELF_LOG"
"""Environment variable with the log file of the process."""
_KILLED_S = 5.0
_ROUNDS = 3
_POLL_S = 0.02
_CLOCK_SLACK_S = 0.02
"""psutil computes the start of a process from clock ticks of 10 ms."""
_STANDARD_ERROR = 2
_LAST_LINES = 25


@dataclass(frozen=True)
class ProcessRef:
    """A started process; its start time tells it from a later process with the same id."""

    pid: int
    create_time: float
    """Seconds since the epoch, from psutil."""
    mark: str


def start_session(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    kept: int = 0,
) -> ProcessRef:
    """Start ``command`` in a new session; append its output to ``log``, of which it keeps some."""
    if kept:
        rotate_log(log, kept)
    mark = uuid.uuid4().hex
    with log.open("ab") as output:
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            cwd=cwd,
            env={**env, MARK: mark, LOG: str(log)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Its files, above all its key file, are private from the first byte on.
            umask=0o077,
        )
    ref = ProcessRef(process.pid, psutil.Process(process.pid).create_time(), mark)
    # The process outlives this object on purpose; stop_session reaps it.
    process.returncode = 0
    return ref


class ProgramPlan(BaseModel):
    """Plan file of a program of Newshelf."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logs: LogSettings = LogSettings()


def write_plan(path: Path, plan: ProgramPlan) -> None:
    """Write a plan, readable by its owner only: the store's URL may hold a password."""
    write_private(path, plan.model_dump_json(indent=2) + "\n")


def start_program(
    module: str, plan: ProgramPlan, plan_file: Path, *, root: Path, log: Path, **env: str
) -> ProcessRef:
    """Write the plan, and start ``python -m MODULE PLAN`` in the log's folder."""
    write_plan(plan_file, plan)
    return start_session(
        [sys.executable, "-P", "-m", module, plan_file],
        cwd=log.parent,
        env={**env, **os.environ, "PYTHONPATH": str(root)},
        log=log,
        kept=plan.logs.kept,
    )


def is_running(ref: ProcessRef) -> bool:
    """Return whether the process itself runs; a zombie does not."""
    return _leader(ref) is not None


def members(ref: ProcessRef) -> list[psutil.Process]:
    """Return the process, if it runs, and its running descendants, orphans included."""
    leader = _leader(ref)
    found = [] if leader is None else [leader]
    return found + [
        process
        for process in psutil.process_iter()
        if process.pid != ref.pid and _belongs(process, ref)
    ]


def stop_session(ref: ProcessRef, *, grace_s: float = 20.0, orphans_s: float = 2.0) -> None:
    """Ask the process to end, wait, then kill what is left of its session.

    Descendants are not asked: the process that started them ends them in order, and they get
    ``orphans_s`` after that. Raises ``ServerError`` if a process survives being killed.
    """
    leader = _leader(ref)
    if leader is not None:
        _signal(leader, signal.SIGTERM)
        _wait([leader], grace_s)
    left = _wait(members(ref), orphans_s)
    for _ in range(_ROUNDS):
        for process in left:
            _signal(process, signal.SIGKILL)
        _wait(left, _KILLED_S)
        # Includes processes started between listing and killing.
        left = members(ref)
        if not left:
            break
    _reap(ref)
    if left:
        raise ServerError(f"cannot end process {', '.join(str(p.pid) for p in left)}")


def _wait(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Return the processes that have not ended; psutil's own wait also waits for init to reap."""
    end = time.monotonic() + timeout_s
    left = [process for process in processes if _alive(process)]
    while left and time.monotonic() < end:
        time.sleep(_POLL_S)
        left = [process for process in left if _alive(process)]
    return left


def _reap(ref: ProcessRef) -> None:
    try:
        os.waitpid(ref.pid, os.WNOHANG)
    except ChildProcessError:
        return


def _leader(ref: ProcessRef) -> psutil.Process | None:
    try:
        process = psutil.Process(ref.pid)
        same = abs(process.create_time() - ref.create_time) <= _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return None
    return process if same and _alive(process) else None


def _belongs(process: psutil.Process, ref: ProcessRef) -> bool:
    try:
        in_session = os.getsid(process.pid) == ref.pid
        return in_session and _alive(process) and process.environ().get(MARK) == ref.mark
    except (psutil.Error, OSError):
        # It has ended, or belongs to another user.
        return False


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP unless ignored (``nohup``), raise KeyboardInterrupt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP in the main thread, so that a clean-up is completed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _ignore) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    # Processes started meanwhile would inherit SIG_IGN.
    return


def read_log(log: Path) -> str:
    """Return the text of a log; empty if the file is missing."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def last_lines(*logs: Path) -> str:
    """Return the last lines of each log, for an error message."""
    text: list[str] = []
    for log in logs:
        lines = read_log(log).splitlines()[-_LAST_LINES:] or ["(empty)"]
        text += [f"the end of {log}:", *(f"  {line}" for line in lines)]
    return "\n".join(text)


def rotate_log(log: Path, kept: int, newest: Path | None = None) -> None:
    """Rename the last log (or ``newest``) to ``log.1``, that before to ``log.2``, and so on."""
    newest = newest or log
    if not newest.exists():
        return
    for number in range(kept - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    newest.replace(log.with_name(f"{log.name}.1"))


def rotate_own(settings: LogSettings) -> None:
    """Keep the log of this process and its children below its maximum size.

    Copies the file and then empties it, since the children keep it open: a line written in
    between may be lost. Does nothing if standard error is not that file.
    """
    try:
        info, path = os.fstat(_STANDARD_ERROR), Path(os.environ.get(LOG, ""))
        if not stat.S_ISREG(info.st_mode) or info.st_size < settings.max_bytes:
            return
        if not path.is_file() or path.stat().st_ino != info.st_ino:
            return
        copy = path.with_name(f"{path.name}.copy")
        shutil.copyfile(path, copy)
        os.truncate(path, 0)
        rotate_log(path, settings.kept, copy)
    except OSError:
        # For example a full disk: the next call tries again.
        return


OnWait = Callable[[str], None]
"""Receives a line now and then while a start is awaited."""
_CHECK_EVERY_S = 1.0
_REPORT_EVERY_S = 15.0
_LEAST_SHARE, _LEAST_S = 0.02, 1.0
"""CPU time that counts as progress, as a share of the limit and in seconds: more than that of
an idle process which answers a health check now and then."""


class StartupProgress:
    """Watches the CPU time of a starting session; it fails after ``limit_s`` without progress."""

    def __init__(self, process: ProcessRef, awaited: str, limit_s: float, on_wait: OnWait) -> None:
        self._process = process
        self._awaited = awaited
        self._limit_s = limit_s
        self._on_wait = on_wait
        self._began_s = self._progress_s = self._reported_s = time.monotonic()
        self._checked_s = -_CHECK_EVERY_S
        self._cpu_s = 0.0

    def failed(self) -> bool:
        """Return whether there was no progress for too long; cheap enough to be called often."""
        now_s = time.monotonic()
        if now_s - self._checked_s >= _CHECK_EVERY_S:
            self._checked_s = now_s
            cpu_s = sum(map(_cpu_s, members(self._process)))
            # The sum falls if a process has ended, which is progress as well.
            if abs(cpu_s - self._cpu_s) >= max(_LEAST_S, _LEAST_SHARE * self._limit_s):
                self._cpu_s, self._progress_s = cpu_s, now_s
            if now_s - self._reported_s >= _REPORT_EVERY_S:
                self._reported_s = now_s
                self._on_wait(
                    f"waiting for {self._awaited}: {now_s - self._began_s:.0f} s, "
                    f"{cpu_s:.0f} s of CPU time"
                )
        return now_s - self._progress_s >= self._limit_s


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
