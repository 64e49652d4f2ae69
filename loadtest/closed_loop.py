"""Closed-loop client of ``./run tune`` and ``./run profile``, which keeps every single latency.

``python -m loadtest.closed_loop`` reads a ``ClosedLoopPlan`` as JSON from standard input and
writes a ``ClosedLoopResult`` as JSON to standard output. It is a process of its own, so neither
its work nor its garbage collection is mistaken for the server's. ``benchmarks.own_cost`` measures
its own cost.
"""

import base64
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count, cycle, islice
from typing import Any

from loadtest.engine import Sender, closed_loop
from loadtest.http_client import with_head
from loadtest.recorder import RIGHT, Outcome
from loadtest.requests import Rendered

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class ClosedLoopRequest:
    """One ``POST``."""

    path: str
    content_type: str
    body: str
    """In base64."""

    def rendered(self) -> Rendered:
        """Return the request as bytes."""
        return Rendered("", self.path, self.content_type, base64.b64decode(self.body))


@dataclass(frozen=True)
class ClosedLoopPlan:
    """A closed load, which ends after ``seconds`` or ``count`` requests."""

    url: str
    """``http://HOST:PORT``."""
    requests: list[ClosedLoopRequest]
    """Sent in turn."""
    clients: int
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    """Length of the measurement."""
    count: int | None = None
    """Number of requests."""
    warm_up_s: float = 0.0
    """Seconds before the measurement, under the same load."""
    timeout_s: float = 30.0
    kept_header: str | None = None
    """Keep every exchange, with this header of its response."""

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "ClosedLoopPlan":
        """Check a JSON object.

        Raises:
            ValueError: a key is unknown or missing, or the values contradict each other.
        """
        try:
            requests = [ClosedLoopRequest(**one) for one in table["requests"]]
            plan = cls(**table | {"requests": requests})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a plan: {error}") from error
        if (plan.seconds is None) == (plan.count is None):
            raise ValueError("give seconds or count")
        if not plan.requests or plan.clients < 1:
            raise ValueError("give requests, and at least one client")
        return plan


@dataclass
class ClosedLoopResult:
    """Measurements of one load."""

    measured_s: float = 0.0
    answered: int = 0
    """Responses with status 200 during the measurement."""
    latencies_ns: list[int] = field(default_factory=list)
    """Of each of them, from the first byte sent to the last one read."""
    failures: dict[str, int] = field(default_factory=dict)
    """During the measurement, by status or kind of error."""
    cpu_s: float = 0.0
    """CPU time of this process during the measurement."""
    exchanges: list[tuple[int, int, int, int, str | None]] = field(default_factory=list)
    """Client, times of sending, of the response's head and of its end (nanoseconds since the
    epoch), and the kept header."""


class _Measurement:
    """Collects the outcomes that end between start and end."""

    def __init__(self, plan: ClosedLoopPlan) -> None:
        self._keeps = plan.kept_header is not None
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._start_ns = self._last_ns = time.monotonic_ns() + int(plan.warm_up_s * _NS_PER_S)
        self.end_ns = (
            sys.maxsize if plan.seconds is None
            else self._start_ns + int(plan.seconds * _NS_PER_S)
        )  # fmt: skip
        self._cpu_from: float | None = None
        self._result = ClosedLoopResult()

    def record(self, client: int, outcome: Outcome) -> None:
        """Count an outcome if it ends during the measurement."""
        if not self._start_ns <= outcome.end_ns <= self.end_ns:
            return
        result = self._result
        self._last_ns = outcome.end_ns
        if self._cpu_from is None:
            self._cpu_from = time.process_time()
        if outcome.result != RIGHT:
            result.failures[outcome.result] = result.failures.get(outcome.result, 0) + 1
            return
        result.answered += 1
        result.latencies_ns.append(outcome.end_ns - outcome.sent_ns)
        if self._keeps:
            times = (outcome.sent_ns, outcome.head_ns, outcome.end_ns)
            sent, head, end = (one + self._epoch_ns for one in times)
            result.exchanges.append((client, sent, head, end, outcome.header))

    def result(self) -> ClosedLoopResult:
        """Return all that was measured."""
        until_ns = self._last_ns if self.end_ns == sys.maxsize else self.end_ns
        self._result.measured_s = (until_ns - self._start_ns) / _NS_PER_S
        if self._cpu_from is not None:
            self._result.cpu_s = time.process_time() - self._cpu_from
        return self._result


def run(plan: ClosedLoopPlan) -> ClosedLoopResult:
    """Send the load and wait until every client has its last response."""
    rendered = [with_head(one.rendered(), plan.url, plan.headers) for one in plan.requests]
    requests = islice(cycle(rendered), plan.count)
    numbers = count()
    measurement = _Measurement(plan)
    senders = [
        Sender(
            plan.url,
            partial(measurement.record, client),
            numbers,
            timeout_s=plan.timeout_s,
            kept_header=plan.kept_header,
        )
        for client in range(plan.clients)
    ]

    def send(client: int) -> Outcome | None:
        request = next(requests, None)
        return None if request is None else senders[client].send(request)

    closed_loop(range(plan.clients), send, end_ns=measurement.end_ns)
    for sender in senders:
        sender.wait()
    return measurement.result()


def _main() -> None:
    plan = ClosedLoopPlan.from_json(json.load(sys.stdin))
    json.dump(asdict(run(plan)), sys.stdout)


if __name__ == "__main__":
    _main()
