"""How much of the cores other work took while something was measured."""

import os
import time
import uuid
from dataclasses import dataclass, field

import psutil

__all__ = ["Others", "mark_own_processes"]

_RUN = "NEWSHELF_BENCHMARK_RUN"


def mark_own_processes() -> None:
    """Let all processes that this one starts be known as its own.

    By their environment: some servers' processes become nobody's children.
    """
    os.environ[_RUN] = uuid.uuid4().hex


def _seconds() -> dict[tuple[int, float], float]:
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
    before: dict[tuple[int, float], float] = field(default_factory=_seconds)

    def share(self) -> float:
        """CPU time of others since then, as a share of what the cores had to give."""
        after = _seconds()
        taken = sum(seconds - self.before.get(one, 0.0) for one, seconds in after.items())
        return taken / (self.cores * (time.monotonic() - self.started))
