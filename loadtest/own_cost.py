"""What ``loadtest.closed_loop`` costs itself: its load against a server that does nothing.

``python -m loadtest.own_cost [BYTES [CLIENTS]]`` prints requests per second and the
processor time of one request.
"""

import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from loadtest.closed_loop import Plan, Request, Result, run

__all__ = ["measure", "noop_server"]

_BYTES, _CLIENTS = 20_000, 32
_SECONDS = 3.0


@contextmanager
def noop_server() -> Iterator[str]:
    """The address of a server that does nothing, in a process of its own."""
    command = [sys.executable, "-m", "loadtest.noop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the server's output was not piped")
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def measure(body_bytes: int, clients: int, seconds: float = _SECONDS) -> Result:
    """Send bodies of ``body_bytes`` from ``clients`` to a server that does nothing."""
    body = base64.b64encode(bytes(body_bytes)).decode()
    requests = [Request("/predictions/nothing", "application/octet-stream", body)]
    with noop_server() as url:
        return run(Plan(url, requests, clients, seconds=seconds, warm_up_s=seconds / 5))


def _main(arguments: list[str]) -> None:
    body_bytes, clients = [*map(int, arguments), *(_BYTES, _CLIENTS)[len(arguments) :]]
    result = measure(body_bytes, clients)
    if not result.answered:
        raise SystemExit(f"nothing was answered: {result.failures}")
    print(
        f"{clients} clients, {body_bytes} bytes each: "
        f"{result.answered / result.measured_s:.0f} requests/s, "
        f"{result.cpu_s / result.answered * 1e6:.0f} µs of the processor for one"
    )


if __name__ == "__main__":
    _main(sys.argv[1:])
