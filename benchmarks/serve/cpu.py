"""CPU time of servers, and of other work on the same cores."""

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

from newshelf.server.process import MARK, ProcessRef

_RUN = "NEWSHELF_BENCHMARK_RUN"

CpuSeconds = Mapping[tuple[str, int, float], float]
"""Program, process id and start → CPU seconds of all threads."""


def _cpu_seconds(wanted: Callable[[psutil.Process], bool]) -> CpuSeconds:
    found = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                if wanted(process):
                    times = process.cpu_times()
                    one = (process.name(), process.pid, process.create_time())
                    found[one] = times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def mark_own_processes() -> None:
    """Mark all processes that this one starts as its own.

    The mark is in their environment: processes of some servers lose their parent.
    """
    os.environ[_RUN] = uuid.uuid4().hex


def _of_others() -> CpuSeconds:
    own, run = os.getpid(), os.environ.get(_RUN)
    return _cpu_seconds(lambda p: p.pid != own and not (run and p.environ().get(_RUN) == run))


@dataclass(frozen=True)
class Others:
    """Processes that are not the benchmark's own, watched since the object was made.

    Processes that begin and end in between are not seen.
    """

    cores: int
    started: float = field(default_factory=time.monotonic)
    before: CpuSeconds = field(default_factory=_of_others)

    def share(self) -> float:
        """Return the CPU time of others since then, as a share of the cores' time."""
        taken = sum(seconds - self.before.get(one, 0.0) for one, seconds in _of_others().items())
        return taken / (self.cores * (time.monotonic() - self.started))


def _of_server(server: ProcessRef) -> CpuSeconds:
    # By the mark in their environment: BentoML's and LitServe's processes leave the session
    # that they were started in.
    return _cpu_seconds(lambda process: process.environ().get(MARK) == server.mark)


@dataclass(frozen=True)
class Spent:
    """CPU time of a server since ``watch``; processes that end in between are not counted."""

    server: ProcessRef
    before: CpuSeconds

    @classmethod
    def watch(cls, server: ProcessRef) -> "Spent":
        """Begin."""
        return cls(server, _of_server(server))

    def per_request_us(self, requests: int) -> dict[str, float]:
        """Return microseconds of a core for each of ``requests``, by program."""
        spent: defaultdict[str, float] = defaultdict(float)
        for one, seconds in _of_server(self.server).items():
            spent[one[0]] += seconds - self.before.get(one, 0.0)
        return {program: seconds / requests * 1e6 for program, seconds in spent.items()}
