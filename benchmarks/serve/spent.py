"""CPU time of a server's processes while something was measured."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from newshelf.server.process import MARK, ProcessRef

__all__ = ["Spent"]


def _seconds(server: ProcessRef) -> dict[tuple[str, int], float]:
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
        return cls(server, _seconds(server))

    def per_request_us(self, requests: int) -> dict[str, float]:
        """Microseconds of a core since then for each of ``requests``, by program."""
        spent: defaultdict[str, float] = defaultdict(float)
        for (program, pid), seconds in _seconds(self.server).items():
            spent[program] += seconds - self.before.get((program, pid), 0.0)
        return {program: seconds / requests * 1e6 for program, seconds in spent.items()}
