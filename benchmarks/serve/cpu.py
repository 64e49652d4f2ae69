"""CPU time of servers, and of other work on the same cores."""

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil

from newshelf.server.process import MARK, ProcessRef

_RUN = "NEWSHELF_BENCHMARK_RUN"


def mark_own_processes() -> None:
    """Let all processes that this one starts be known as its own.

    By their environment: some servers' processes become nobody's children.
    """
    os.environ[_RUN] = uuid.uuid4().hex


def _others_seconds() -> dict[tuple[int, float], float]:
    """By process id and start: CPU seconds so far of each process that is not ours."""
    me, run = os.getpid(), os.environ.get(_RUN)
    found = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                if process.pid == me or (run and process.environ().get(_RUN) == run):
                    continue
                times = process.cpu_times()
                one = (process.pid, process.create_time())
            found[one] = times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@dataclass(frozen=True)
class Others:
    """Watches from its making on the processes that are not the benchmark's own.

    Those that begin and end in between are not seen.
    """

    cores: int
    started: float = field(default_factory=time.monotonic)
    before: dict[tuple[int, float], float] = field(default_factory=_others_seconds)

    def share(self) -> float:
        """CPU time of others since then, as a share of what the cores had to give."""
        after = _others_seconds()
        taken = sum(seconds - self.before.get(one, 0.0) for one, seconds in after.items())
        return taken / (self.cores * (time.monotonic() - self.started))


def _server_seconds(server: ProcessRef) -> dict[tuple[str, int], float]:
    """By program and process id: CPU seconds so far, of all threads.

    A server's processes are known by the mark in their environment: BentoML's and LitServe's
    leave the session that they were started in.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                if process.environ().get(MARK) != server.mark:
                    continue
                times = process.cpu_times()
                found[process.name(), process.pid] = times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@dataclass(frozen=True)
class Spent:
    """Watches from ``watch`` on; processes that end in between are not counted."""

    server: ProcessRef
    before: Mapping[tuple[str, int], float]

    @classmethod
    def watch(cls, server: ProcessRef) -> "Spent":
        """Begin."""
        return cls(server, _server_seconds(server))

    def per_request_us(self, requests: int) -> dict[str, float]:
        """Microseconds of a core since then for each of ``requests``, by program."""
        spent: defaultdict[str, float] = defaultdict(float)
        for (program, pid), seconds in _server_seconds(self.server).items():
            spent[program] += seconds - self.before.get((program, pid), 0.0)
        return {program: seconds / requests * 1e6 for program, seconds in spent.items()}
