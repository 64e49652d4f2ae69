"""Starting a process with its descendants, and ending exactly those.

The process gets a session of its own and a random mark in its environment, which its
descendants inherit. Ending goes by both: a process id that the system has given to
someone else since then is left alone.

Whether started processes still get on, however slow the machine is.

Logs of started processes: those of earlier starts are kept, and none grows without end.
"""

import os
import shutil
import signal
import stat
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from newshelf.config import LogSettings
from newshelf.errors import ServerError

LOG = "NEWSHELF_LOG"
"""The environment variable that tells a started process where its output goes."""
_STANDARD_ERROR = 2
_LAST_LINES = 25


def read_log(log: Path) -> str:
    """Its text; empty where it is missing."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def ends_of(*logs: Path) -> str:
    """The last lines of each, for an error's message."""
    said: list[str] = []
    for log in logs:
        lines = read_log(log).splitlines()[-_LAST_LINES:] or ["(empty)"]
        said += [f"the end of {log}:", *(f"  {line}" for line in lines)]
    return "\n".join(said)


def keep_earlier(log: Path, kept: int, newest: Path | None = None) -> None:
    """Make room for a new ``log``: the last one is ``log.1``, the one before ``log.2``.

    Args:
        log: the file; nothing happens where it is missing.
        kept: older files that stay.
        newest: becomes ``log.1`` instead of ``log`` itself.
    """
    newest = newest or log
    if not newest.exists():
        return
    for number in range(kept - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    newest.replace(log.with_name(f"{log.name}.1"))


def rotate_own(settings: LogSettings) -> None:
    """Keep the file that this process and its children append to below its largest size.

    The file is copied and then emptied, since the children cannot be told of another one: a line
    that is written at that very moment may be lost. Output that is no such file is left alone.
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
        keep_earlier(path, settings.kept, copy)
    except OSError:
        # A full disk, or the like: the next call tries again.
        return


MARK = "NEWSHELF_SESSION"
_KILLED_S = 5.0
_ROUNDS = 3
_POLL_S = 0.02
_CLOCK_SLACK_S = 0.02
"""psutil computes a process's start from clock ticks of 10 ms."""


@dataclass(frozen=True)
class ProcessRef:
    """A process that was started here, told apart from a later one with the same id."""

    pid: int
    create_time: float
    """Seconds since the epoch, as psutil gives it."""
    mark: str


def start_session(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    kept: int = 0,
) -> ProcessRef:
    """Start ``command`` in a new session, without input, its output appended to ``log``.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        env: its environment.
        log: the file; see ``newshelf.server.process``.
        kept: logs of earlier starts that are kept; 0 appends to the last one.
    """
    if kept:
        keep_earlier(log, kept)
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
            # What it writes, its key file above all, is private from the first byte on.
            umask=0o077,
        )
    ref = ProcessRef(process.pid, psutil.Process(process.pid).create_time(), mark)
    # The process outlives this object on purpose; stop_session reaps it.
    process.returncode = 0
    return ref


def is_running(ref: ProcessRef) -> bool:
    """Whether the process itself runs; one that has ended and waits to be reaped does not."""
    return _leader(ref) is not None


def members(ref: ProcessRef) -> list[psutil.Process]:
    """The process, when it runs, and its descendants that still run, orphans too."""
    leader = _leader(ref)
    found = [] if leader is None else [leader]
    return found + [
        process
        for process in psutil.process_iter()
        if process.pid != ref.pid and _belongs(process, ref)
    ]


def stop_session(ref: ProcessRef, *, grace_s: float = 20.0, orphans_s: float = 2.0) -> None:
    """Ask the process to end, wait, then end what is left of its session.

    Descendants are not asked first: the process that started them ends them in order.

    Args:
        ref: the process.
        grace_s: how long it may take to end when asked.
        orphans_s: how long its descendants may take to notice that it is gone.

    Raises:
        ServerError: a process does not even end when it is killed.
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
        # Whatever was started between the look and the signal.
        left = members(ref)
        if not left:
            break
    _reap(ref)
    if left:
        raise ServerError(f"cannot end process {', '.join(str(p.pid) for p in left)}")


def _wait(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until the processes have ended; return those that have not.

    psutil's own wait also waits for an orphan to be reaped, which is init's affair and may
    take its time.
    """
    end = time.monotonic() + timeout_s
    left = [process for process in processes if _alive(process)]
    while left and time.monotonic() < end:
        time.sleep(_POLL_S)
        left = [process for process in left if _alive(process)]
    return left


def _reap(ref: ProcessRef) -> None:
    """Take the ended process off the table when it was this process that started it."""
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
        # Gone meanwhile, or another user's: in neither case one of ours.
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


OnWait = Callable[[str], None]
"""Told now and then what a start waits for."""
_CHECK_EVERY_S = 1.0
_TELL_S = 15.0
_LEAST_SHARE, _LEAST_S = 0.02, 1.0
"""Of the limit: what idles, and answers a question now and then, uses less of a processor."""


class StartupProgress:
    """Watches the processor time of a session that starts.

    Args:
        process: the session's.
        what: it waits for, in words.
        limit_s: without progress, after which the start has failed.
        on_wait: told about every quarter of a minute.
    """

    def __init__(self, process: ProcessRef, what: str, limit_s: float, on_wait: OnWait) -> None:
        self._process = process
        self._what = what
        self._limit_s = limit_s
        self._on_wait = on_wait
        self._began_s = self._moved_s = self._told_s = time.monotonic()
        self._looked_s = -_CHECK_EVERY_S
        self._spent_s = 0.0

    def failed(self) -> bool:
        """Look, and say whether it stands still for too long; cheap to be called often."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _CHECK_EVERY_S:
            self._looked_s = now_s
            spent_s = sum(map(_spent_s, members(self._process)))
            # Less, when a process has ended: that is a change as well.
            if abs(spent_s - self._spent_s) >= max(_LEAST_S, _LEAST_SHARE * self._limit_s):
                self._spent_s, self._moved_s = spent_s, now_s
            if now_s - self._told_s >= _TELL_S:
                self._told_s = now_s
                self._on_wait(
                    f"waiting for {self._what}: {now_s - self._began_s:.0f} s, "
                    f"{spent_s:.0f} s of processor time"
                )
        return now_s - self._moved_s >= self._limit_s


def _spent_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
