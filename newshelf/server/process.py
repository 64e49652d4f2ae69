"""Starting a process with its descendants, and ending exactly those.

The process gets a session of its own and a random mark in its environment, which its
descendants inherit. Ending goes by both: a process id that the system has given to
someone else since then is left alone.
"""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from newshelf.errors import ServerError
from newshelf.server.logs import LOG, keep_earlier

__all__ = ["MARK", "ProcessRef", "is_running", "members", "start_session", "stop_session"]

MARK = "NEWSHELF_SESSION"
_KILLED_S = 5.0
_ROUNDS = 3
_LOOK_S = 0.02
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
        log: the file; see ``newshelf.server.logs``.
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
        time.sleep(_LOOK_S)
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
