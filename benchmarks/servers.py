"""Servers with known behaviour, to measure the load engine itself.

``python -m benchmarks.servers noop`` answers every request with 200 and ``{}``.
``python -m benchmarks.servers known --service-ms 20`` has a known service time, so that the
results of a load test can be checked: requests wait in one queue, first come first served, for
one of ``--workers``, each of which takes the service time for a request; request number
``--stall-at`` (from 1) takes ``--stall-ms`` longer. ``--log`` is a file with three times per
request, in nanoseconds of ``time.monotonic_ns``: its arrival, the calculated end of its
service, and when the response was actually sent, which on a busy machine is later.

The time of each response is calculated from the arrivals, not from when earlier responses were
sent: a late timer of a busy machine delays one response, not all that follow.

Each prints its port and serves until it is terminated.
"""

import argparse
import heapq
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

import gevent
from gevent.server import StreamServer
from gevent.socket import socket

from benchmarks.processes import module_command, module_environment
from loadtest.engine import sleep_until

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_BLOCK = 65536
_NS_PER_MS = 1_000_000
_BACKLOG = 1024


def noop_server() -> AbstractContextManager[str]:
    """Run the server that does nothing; the context's value is its URL."""
    return _server_process("noop")


def known_server(**options: object) -> AbstractContextManager[str]:
    """Run a server with a known service time (``service_ms=20``); the value is its URL."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return _server_process("known", *words)


@contextmanager
def _server_process(*arguments: str) -> Iterator[str]:
    command = module_command("benchmarks.servers", *arguments)
    with subprocess.Popen(
        command, env=module_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the server's output was not piped")
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def serve_noop(connection: socket, _address: object) -> None:
    """Answer the requests of one connection, which must have a Content-Length."""
    for _ in _requests_of(connection):
        connection.sendall(_ANSWER)


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
        """Set up idle workers; ``stall_at`` 0 means no stall."""
        self._log = log
        self._service_ns = int(service_ms * _NS_PER_MS)
        self._stall_at, self._stall_ns = stall_at, int(stall_ms * _NS_PER_MS)
        self._free_ns = [0] * workers
        """When each worker will be free, as a heap."""
        self._count = 0

    def serve(self, connection: socket, _address: object) -> None:
        """Answer the requests of one connection, each when its service ends."""
        for _ in _requests_of(connection):
            arrived_ns = time.monotonic_ns()
            done_ns = self._done_ns(arrived_ns)
            sleep_until(done_ns)
            connection.sendall(_ANSWER)
            if self._log is not None:
                print(arrived_ns, done_ns, time.monotonic_ns(), file=self._log, flush=True)

    def _done_ns(self, arrived_ns: int) -> int:
        self._count += 1
        service_ns = self._service_ns + (self._stall_ns if self._count == self._stall_at else 0)
        done_ns = max(arrived_ns, self._free_ns[0]) + service_ns
        heapq.heapreplace(self._free_ns, done_ns)
        return done_ns


def _requests_of(connection: socket) -> Iterator[int]:
    """Yield the size in bytes of each request of a connection once it is complete."""
    data = bytearray()
    while block := connection.recv(_BLOCK):
        data += block
        while (size := request_size(data)) is not None and len(data) >= size:
            del data[:size]
            yield size


def request_size(data: bytearray) -> int | None:
    """Return the size of the first request with its body; None before its head is complete."""
    head = data.find(_END)
    if head < 0:
        return None
    lines = data[:head].lower().split(b"\r\n")
    length = next((int(line[len(_LENGTH) :]) for line in lines if line.startswith(_LENGTH)), 0)
    return head + len(_END) + length


def run_server(serve: Callable[[socket, object], None], port: int = 0) -> None:
    """Print the port, then serve until terminated."""
    server = StreamServer(("127.0.0.1", port), serve, backlog=_BACKLOG)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


def _main() -> None:
    parser = argparse.ArgumentParser()
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("noop")
    known = kinds.add_parser("known")
    known.add_argument("--service-ms", type=float, required=True)
    known.add_argument("--workers", type=int, default=1)
    known.add_argument("--stall-at", type=int, default=0)
    known.add_argument("--stall-ms", type=float, default=0.0)
    known.add_argument("--log", type=Path)
    options = parser.parse_args()
    if options.kind == "noop":
        run_server(serve_noop)
        return
    # For timers of a tenth of a millisecond; see loadtest.engine.
    gevent.config.libev_backend = "select"
    server = KnownServer(
        options.service_ms,
        options.workers,
        stall_at=options.stall_at,
        stall_ms=options.stall_ms,
        log=options.log.open("w") if options.log else None,
    )
    run_server(server.serve)


if __name__ == "__main__":
    _main()
