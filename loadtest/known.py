"""A server whose service time is known, so that what a load test says of it can be checked.

``python -m loadtest.known --service-ms 20`` prints its port and serves until it is ended.
Requests wait in one queue, first come first served, for one of ``--workers``, each of which
takes the service time for a request; request number ``--stall-at`` (from 1) takes
``--stall-ms`` more. ``--log`` is a file for three moments of each request, in nanoseconds of
``time.monotonic_ns``: its arrival, the calculated end of its service, and when the answer was
really sent, which on a busy machine is later.

Every answer's moment is calculated from the moments of arrival, not from when the answers
before it happened to be sent: a late timer of a busy machine delays one answer, not all that
follow.
"""

import argparse
import heapq
import time
from pathlib import Path
from typing import TextIO

import gevent
from gevent.server import StreamServer
from gevent.socket import socket

from loadtest.loops import sleep_until
from loadtest.noop import ANSWER, requests_of

__all__ = ["KnownServer"]

_NS_PER_MS = 1_000_000
_BACKLOG = 1024


class KnownServer:
    """One queue and its workers."""

    def __init__(
        self,
        service_ms: float,
        workers: int,
        *,
        stall_at: int = 0,
        stall_ms: float = 0.0,
        log: TextIO | None = None,
    ) -> None:
        """``stall_at`` 0 is no stall."""
        self._log = log
        self._service_ns = int(service_ms * _NS_PER_MS)
        self._stall_at, self._stall_ns = stall_at, int(stall_ms * _NS_PER_MS)
        self._free_ns = [0] * workers
        """When each worker will be free, as a heap."""
        self._count = 0

    def serve(self, connection: socket, _address: object) -> None:
        """Answer the requests of one connection, each when its service is over."""
        for _ in requests_of(connection):
            arrived_ns = time.monotonic_ns()
            done_ns = self._done_ns(arrived_ns)
            sleep_until(done_ns)
            connection.sendall(ANSWER)
            if self._log is not None:
                print(arrived_ns, done_ns, time.monotonic_ns(), file=self._log, flush=True)

    def _done_ns(self, arrived_ns: int) -> int:
        self._count += 1
        service_ns = self._service_ns + (self._stall_ns if self._count == self._stall_at else 0)
        done_ns = max(arrived_ns, self._free_ns[0]) + service_ns
        heapq.heapreplace(self._free_ns, done_ns)
        return done_ns


def _main() -> None:
    # For timers of a tenth of a millisecond; see loadtest.generator.
    gevent.config.libev_backend = "select"
    parser = argparse.ArgumentParser()
    parser.add_argument("--service-ms", type=float, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--stall-at", type=int, default=0)
    parser.add_argument("--stall-ms", type=float, default=0.0)
    parser.add_argument("--log", type=Path)
    words = parser.parse_args()
    known = KnownServer(
        words.service_ms,
        words.workers,
        stall_at=words.stall_at,
        stall_ms=words.stall_ms,
        log=words.log.open("w") if words.log else None,
    )
    server = StreamServer(("127.0.0.1", 0), known.serve, backlog=_BACKLOG)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _main()
