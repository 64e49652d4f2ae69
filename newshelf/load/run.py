"""Sends a load by a process of its own (``loadtest.closed_loop``) and reads what it measured."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import ServerError
from newshelf.pipeline.workspace import ROOT

__all__ = ["Exchange", "LoadRequest", "LoadResult", "run_load"]

_PROGRAM = "loadtest.closed_loop"
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class LoadRequest:
    """One ``POST``."""

    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """One request that was answered with 200; moments are nanoseconds since the epoch."""

    client: int
    sent_ns: int
    head_ns: int
    """The answer's head was read."""
    end_ns: int
    header: str | None
    """Of the answer: the one that was asked for."""


@dataclass(frozen=True, eq=False)
class LoadResult:
    """What was measured."""

    measured_s: float
    latencies_ms: NDArray[np.float64]
    """Of each request that was answered with 200."""
    failures: Mapping[str, int]
    """By status or kind of error."""
    client_cpu_s: float
    """What the clients themselves computed meanwhile."""
    exchanges: Sequence[Exchange] = field(default=())

    @property
    def per_second(self) -> float:
        """Requests answered with 200 in a second."""
        return len(self.latencies_ms) / self.measured_s if self.measured_s > 0 else 0.0

    @property
    def failed_share(self) -> float:
        """Of all requests, between 0 and 1; 1 when none was answered."""
        failed = sum(self.failures.values())
        total = failed + len(self.latencies_ms)
        return failed / total if total else 1.0

    def percentile_ms(self, percent: float) -> float:
        """The smallest latency that ``percent`` of them do not exceed; infinite without any."""
        if not len(self.latencies_ms):
            return float("inf")
        return float(np.percentile(self.latencies_ms, percent, method="inverted_cdf"))


def run_load(
    url: str,
    headers: Mapping[str, str],
    requests: Sequence[LoadRequest],
    *,
    clients: int,
    seconds: float | None = None,
    count: int | None = None,
    warm_up_s: float = 0.0,
    kept_header: str | None = None,
) -> LoadResult:
    """Send ``requests`` in turns from ``clients``, each of which waits for its answer.

    Args:
        url: ``http://HOST:PORT``.
        headers: sent with each, such as the token.
        requests: at least one.
        clients: how many send at a time.
        seconds: how long; or else
        count: how many requests in all.
        warm_up_s: under the same load before that, not measured.
        kept_header: keep every exchange, with this header of its answer.

    Raises:
        ServerError: the load could not be sent at all.
    """
    plan = {
        "url": url,
        "headers": dict(headers),
        "requests": [
            {
                "path": request.path,
                "content_type": request.content_type,
                "body": base64.b64encode(request.body).decode("ascii"),
            }
            for request in requests
        ],
        "clients": clients,
        "seconds": seconds,
        "count": count,
        "warm_up_s": warm_up_s,
        "kept_header": kept_header,
    }
    # By standard input: the token in the headers is for no list of processes.
    done = subprocess.run(
        [sys.executable, "-P", "-m", _PROGRAM],
        input=json.dumps(plan),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"{_PROGRAM} failed: {done.stderr.strip()[-2000:]}")
    return _result(json.loads(done.stdout))


def _result(table: dict[str, Any]) -> LoadResult:
    return LoadResult(
        measured_s=table["measured_s"],
        latencies_ms=np.array(table["latencies_ns"], dtype=np.float64) / _NS_PER_MS,
        failures=table["failures"],
        client_cpu_s=table["cpu_s"],
        exchanges=[Exchange(*one) for one in table["exchanges"]],
    )
