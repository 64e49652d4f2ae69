"""Processes of a server: start, stop, signals, log files, progress of a start.

A started process leads a session of its own and carries a random mark in its environment, which
its descendants inherit. Stopping goes by both, so that a process id which the system has reused
is left alone.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from newshelf.config import LogSettings
from newshelf.errors import ServerError
from newshelf.files import write_private

_ROOT = Path(__file__).resolve().parents[2]
MARK = "NEWSHELF_SESSION"
"""Environment variable with the mark of the session."""
HEARTBEAT = "NEWSHELF_HEARTBEAT"
"""Environment variable with the file that a supervised process touches."""
_KILLED_S = 5.0
_ROUNDS = 3
_POLL_S = 0.02
_CLOCK_SLACK_S = 0.02
"""psutil computes the start of a process from clock ticks of 10 ms."""
_LAST_LINES = 25


@dataclass(frozen=True)
class ProcessRef:
    """A started process; its start time tells it from a later process with the same id."""

    pid: int
    create_time: float
    """See ``started_s``."""
    mark: str


def start_session(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path | None,
    kept: int = 0,
    sockets: Sequence[int] = (),
) -> ProcessRef:
    """Start ``command`` in a new session, with ``sockets``; append its output to ``log``."""
    if log is not None and kept:
        rotate_log(log, kept)
    mark = uuid.uuid4().hex
    with nullcontext() if log is None else log.open("ab") as output:
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            cwd=cwd,
            env={**env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if log is None else subprocess.STDOUT,
            start_new_session=True,
            pass_fds=sockets,
            # Its files, above all its key file, are private from the first byte on.
            umask=0o077,
        )
    ref = ProcessRef(process.pid, started_s(process.pid), mark)
    # The process outlives this object on purpose; stop_session reaps it.
    process.returncode = 0
    return ref


def give_way(nice: int) -> None:
    """Let other processes have the cores first, as by ``nice``.

    The kernel may weigh sessions instead of processes, and the niceness of a process only against
    others of its session (man 7 sched, "The autogroup feature").
    """
    os.nice(nice)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(f"{nice}\n", encoding="ascii")


class ProgramPlan(BaseModel):
    """Plan file of a program of Newshelf."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logs: LogSettings = LogSettings()


def write_plan(path: Path, plan: ProgramPlan) -> None:
    """Write a plan, readable by its owner only: the store's URL may hold a password."""
    write_private(path, plan.model_dump_json(indent=2) + "\n")


class Service(BaseModel, frozen=True):
    """A process that is kept running."""

    name: str
    command: tuple[str, ...]
    cwd: Path
    log: Path | None = None
    """File of its output; None is this process's own."""
    env: dict[str, str | None] = {}
    """Added to the environment; None removes a variable."""
    sockets: tuple[int, ...] = ()
    cleared: Path | None = None
    """Folder that is empty when it starts."""
    url: str | None = None
    """Asked for a sign of life instead of its heartbeat."""
    heartbeat: Path = Path()
    start_s: float = 300.0
    silence_s: float = 60.0
    """Maximum times until the first sign of life, and between two."""

    def start(self, *, kept: int = 0) -> ProcessRef:
        """Start the process; ``kept`` logs of earlier starts stay, and 0 appends to the last."""
        if self.url is None:
            self.heartbeat.unlink(missing_ok=True)
        if self.cleared is not None:
            shutil.rmtree(self.cleared, ignore_errors=True)
            self.cleared.mkdir(mode=0o700)
        env = {**os.environ, HEARTBEAT: str(self.heartbeat), **self.env}
        return start_session(
            self.command,
            cwd=self.cwd,
            env={name: value for name, value in env.items() if value is not None},
            log=self.log,
            kept=kept,
            sockets=self.sockets,
        )


def program(name: str, module: str, plan: Path, *arguments: str, **more: Any) -> Service:
    """Return the service of ``python -m MODULE PLAN``; ``more`` are fields of it."""
    command = (sys.executable, "-P", "-m", module, str(plan), *arguments)
    # Its products are small: threads would only wait for each other.
    env = {"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")}
    env |= {"PYTHONPATH": str(_ROOT), **more.pop("env", {})}
    return Service(name=name, command=command, cwd=plan.parent, env=env, **more)


def beat() -> None:
    """Tell the supervisor, if there is one, that this process does its work."""
    if path := os.environ.get(HEARTBEAT):
        with suppress(OSError):
            Path(path).touch()


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
    exit_reason(ref)
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


def started_s(pid: int) -> float:
    """Return the seconds from the system's start to the process's; no step of a clock changes them.

    psutil adds the time of the system's start by the clock of now.
    """
    return psutil.Process(pid).create_time() - psutil.boot_time()


def exit_reason(ref: ProcessRef) -> str:
    """Return how the process ended, as far as its parent, which must call this, can know."""
    try:
        _, status = os.waitpid(ref.pid, os.WNOHANG)
    except ChildProcessError:
        return "ended"
    code = os.waitstatus_to_exitcode(status)
    # Most real-time signals have no name.
    names = {one.value: one.name for one in signal.Signals}
    return f"ended with {names.get(-code, f'signal {-code}') if code < 0 else f'exit code {code}'}"


def _leader(ref: ProcessRef) -> psutil.Process | None:
    try:
        process = psutil.Process(ref.pid)
        same = abs(started_s(ref.pid) - ref.create_time) <= _CLOCK_SLACK_S
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
def _handling(numbers: Iterable[signal.Signals], handler: Callable[..., None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP unless ignored (``nohup``), raise KeyboardInterrupt."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    with _handling([one for one in numbers if signal.getsignal(one) != signal.SIG_IGN], interrupt):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP in the main thread, so that a clean-up is completed."""
    is_main = threading.current_thread() is threading.main_thread()
    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if is_main else (), _ignore):
        yield


def _ignore(*_: object) -> None:
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


def rotate_large(log: Path, settings: LogSettings) -> None:
    """Rotate a log that has its maximum size, while processes append to it.

    Copies the file and then empties it, since they keep it open: a line written in between may be
    lost.
    """
    try:
        if log.stat().st_size < settings.max_bytes:
            return
        copy = log.with_name(f"{log.name}.copy")
        shutil.copyfile(log, copy)
        os.truncate(log, 0)
        rotate_log(log, settings.kept, copy)
    except OSError:
        # For example a full disk: the next call tries again.
        return


_PAUSE_S = 0.5


def wait_for(
    answers: Callable[[], bool], process: ProcessRef, name: str, limit_s: float, *logs: Path
) -> None:
    """Wait until a starting process answers, or raise ``ServerError`` with the end of its logs."""
    until_s = time.monotonic() + limit_s
    while not answers():
        if not is_running(process):
            raise ServerError(f"{name} ended while it started\n{last_lines(*logs)}")
        if time.monotonic() > until_s:
            late = f"{name} did not answer within {limit_s:.0f} s"
            raise ServerError(f"{late}\n{last_lines(*logs)}")
        time.sleep(_PAUSE_S)
