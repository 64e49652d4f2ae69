"""Closed-loop load by wrk, a client in C.

The requests repeat in turn; each client sends its next one after the last answer. A load with a
single wrong or incomplete answer has no result.
"""

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.results import BenchmarkError

_SCRIPT = Path(__file__).with_name("wrk.lua")
_SLACK_S = 60.0
_TIMEOUT_S = 30
"""Timeout of one answer; wrk's default of 2 s is too short for a queue of slow answers."""
_FAILURES = ("connect", "read", "write", "timeout", "other_status", "short")


@dataclass(frozen=True)
class Request:
    """One POST request with its body in a file."""

    path: str
    """Path of the URL."""
    body: Path
    headers: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Return the line that ``wrk.lua`` reads.

        Raises:
            BenchmarkError: it contains a tab or a line's end, which would split it.
        """
        parts = ["POST", self.path, str(self.body)]
        parts += [f"{name}: {value}" for name, value in self.headers.items()]
        if any(mark in part for part in parts for mark in "\t\r\n"):
            raise BenchmarkError(f"a request with a tab or a line's end cannot be sent: {parts}")
        return "\t".join(parts)


@dataclass(frozen=True)
class Load:
    """Result of one load. Latencies are the client's, from sending to the whole answer."""

    clients: int
    requests: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    """CPU time of the server's processes per request in µs, by program; empty without a server."""


def require_wrk() -> str:
    """Return the path of wrk.

    Raises:
        BenchmarkError: it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise BenchmarkError(
            "the load generator wrk is not installed: on Debian and Ubuntu `apt-get install wrk`, "
            "on a Mac `brew install wrk`, otherwise build it from https://github.com/wg/wrk"
        )
    return found


def load(
    url: str,
    requests: Sequence[Request],
    *,
    clients: int,
    seconds: float,
    least_bytes: int = 1,
    pause_ms: float = 0.0,
) -> Load:
    """Send ``requests`` in turn from ``clients`` connections for ``seconds``; return the result.

    Args:
        url: scheme, host and port.
        requests: at least one.
        clients: connections, each with one request under way.
        seconds: rounded up to whole ones, as wrk wants them.
        least_bytes: an answer with a shorter body is wrong.
        pause_ms: mean pause of a connection before each request, exponentially distributed.
            Many connections that pause for long together are nearly a Poisson process.

    Raises:
        BenchmarkError: wrk is missing or failed, or any answer was not right.
    """
    wrk = require_wrk()
    whole = max(1, math.ceil(seconds))
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as table:
        table.writelines(f"{request.line()}\n" for request in requests)
        table.flush()
        command = [
            *(wrk, "--threads", "1", "--connections", str(clients), "--duration", f"{whole}s"),
            *("--timeout", f"{_TIMEOUT_S}s", "--script", str(_SCRIPT), url),
            *("--", table.name, str(least_bytes), str(pause_ms)),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=whole + _SLACK_S, check=False
        )
    if done.returncode != 0:
        raise BenchmarkError(f"wrk failed on {url}: {(done.stderr or done.stdout).strip()}")
    return parse_wrk(done.stdout, clients)


def parse_wrk(output: str, clients: int) -> Load:
    """Parse the line printed by ``wrk.lua``.

    Raises:
        BenchmarkError: it is missing, no request was answered, or one was answered wrongly.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchmarkError(f"wrk printed no result: {output.strip()[-500:]}")
    found = json.loads(lines[-1])
    failed = {name: found[name] for name in _FAILURES if found[name]}
    if failed or not found["requests"]:
        named = ", ".join(f"{name} {count}" for name, count in failed.items()) or "no answer"
        raise BenchmarkError(f"of {found['requests']} answers some are wrong: {named}")
    return Load(
        clients=clients,
        requests=found["requests"],
        per_second=found["requests"] / (found["duration_us"] / 1e6),
        **{f"{name}_ms": found[f"{name}_us"] / 1e3 for name in ("p50", "p90", "p99", "max")},
    )
