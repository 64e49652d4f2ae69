"""A closed loop: so many clients, each of which sends its next request after an answer.

``python -m loadtest.closed_loop`` reads a ``Plan`` as JSON from standard input and writes a
``Result`` as JSON to standard output. It runs in a process of its own, so that neither its
work nor its garbage collection is mistaken for the server's, and every latency is kept as it
was measured. ``loadtest.own_cost`` says what it costs itself.

Head and body of a request are put together once, before the clock starts.
"""

import base64
import json
import sys
import time
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import gevent
from geventhttpclient.response import HTTPSocketResponse

from loadtest.http_client import FAILURES, Connection, address_of, request_head

_OK = 200
_PAUSE_S = 0.05
"""After a failed connection, which would otherwise be tried again at once, and for ever."""


@dataclass(frozen=True)
class Request:
    """One ``POST``."""

    path: str
    content_type: str
    body: str
    """In base64."""


@dataclass(frozen=True)
class Plan:
    """Either ``seconds`` or ``count`` ends it."""

    url: str
    """``http://HOST:PORT``."""
    requests: list[Request]
    """Sent in turns."""
    clients: int
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    """How long it is measured."""
    count: int | None = None
    """How many requests are sent."""
    warm_up_s: float = 0.0
    """Before that, under the same load, not measured."""
    timeout_s: float = 30.0
    kept_header: str | None = None
    """Keep every exchange, with this header of its answer."""

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Plan":
        """Check what a JSON object says.

        Raises:
            ValueError: an unknown key, or one that is missing.
        """
        try:
            plan = cls(**table | {"requests": [Request(**one) for one in table["requests"]]})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a plan: {error}") from error
        if (plan.seconds is None) == (plan.count is None):
            raise ValueError("give seconds or count")
        if not plan.requests or plan.clients < 1:
            raise ValueError("give requests, and at least one client")
        return plan


@dataclass
class Result:
    """What was measured."""

    measured_s: float = 0.0
    answered: int = 0
    """With status 200, while it was measured."""
    latencies_ns: list[int] = field(default_factory=list)
    """Of each of them, from the first byte sent to the last one read."""
    failures: dict[str, int] = field(default_factory=dict)
    """By status or kind of error, while it was measured."""
    cpu_s: float = 0.0
    """This process's own computing while it was measured."""
    exchanges: list[tuple[int, int, int, int, str | None]] = field(default_factory=list)
    """Client, moments of sending, of the answer's head and of its end (nanoseconds since the
    epoch), and the header that was to be kept."""


def run(plan: Plan) -> Result:
    """Send the load and wait until every client has its last answer."""
    loop = _Loop(plan)
    clients = [gevent.spawn(loop.client, number) for number in range(plan.clients)]
    gevent.joinall(clients, raise_error=True)
    return loop.result()


class _Loop:
    """What the clients share."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._address = address_of(plan.url)
        self._requests = [_wire(plan, request) for request in plan.requests]
        self._sent = 0
        self._latencies = array("q")
        self._failures: Counter[str] = Counter()
        self._exchanges: list[tuple[int, int, int, int, str | None]] = []
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()
        self._start_ns = time.perf_counter_ns() + int(plan.warm_up_s * 1e9)
        self._end_ns = self._start_ns + int(plan.seconds * 1e9) if plan.seconds else sys.maxsize
        self._last_ns = self._start_ns
        self._cpu_from: float | None = None
        self._cpu_s = 0.0

    def client(self, number: int) -> None:
        """Send requests until the plan is done."""
        connection = Connection(self._address, self._plan.timeout_s)
        while (request := self._next()) is not None:
            sent_ns = time.perf_counter_ns()
            try:
                response = connection.post(request)
                head_ns = time.perf_counter_ns()
                response.read()
            except FAILURES as error:
                self._fail(type(error).__name__)
                connection.close()
                gevent.sleep(_PAUSE_S)
                continue
            self._take(number, sent_ns, head_ns, response)
            connection.settle(response)
        connection.close()

    def result(self) -> Result:
        """All that was measured."""
        until_ns = self._end_ns if self._plan.seconds else self._last_ns
        return Result(
            measured_s=(until_ns - self._start_ns) / 1e9,
            answered=len(self._latencies),
            latencies_ns=list(self._latencies),
            failures=dict(self._failures),
            cpu_s=self._cpu_s,
            exchanges=self._exchanges,
        )

    def _next(self) -> bytes | None:
        if self._plan.count is not None and self._sent >= self._plan.count:
            return None
        if time.perf_counter_ns() >= self._end_ns:
            return None
        self._sent += 1
        return self._requests[(self._sent - 1) % len(self._requests)]

    def _is_measured(self) -> bool:
        """Whether now lies in what is measured, which ends the last look at the clock."""
        now = time.perf_counter_ns()
        if not self._start_ns <= now <= self._end_ns:
            return False
        self._last_ns = now
        if self._cpu_from is None:
            self._cpu_from = time.process_time()
        self._cpu_s = time.process_time() - self._cpu_from
        return True

    def _fail(self, kind: str) -> None:
        if self._is_measured():
            self._failures[kind] += 1

    def _take(self, number: int, sent_ns: int, head_ns: int, response: HTTPSocketResponse) -> None:
        if not self._is_measured():
            return
        status = response.get_code()
        if status != _OK:
            self._failures[str(status)] += 1
            return
        self._latencies.append(self._last_ns - sent_ns)
        if self._plan.kept_header is not None:
            header = response.get(self._plan.kept_header)
            kept = header if isinstance(header, str) else None
            epoch = self._epoch_ns
            self._exchanges.append(
                (number, sent_ns + epoch, head_ns + epoch, self._last_ns + epoch, kept)
            )


def _wire(plan: Plan, request: Request) -> bytes:
    body = base64.b64decode(request.body)
    head = request_head(plan.url, request.path, request.content_type, len(body), plan.headers)
    return head + body


def _main() -> None:
    plan = Plan.from_json(json.load(sys.stdin))
    json.dump(asdict(run(plan)), sys.stdout)


if __name__ == "__main__":
    _main()
