"""Closed-loop client of ``./run tune`` and ``./run profile``, which keeps every single latency.

``python -m loadtest.closed_loop`` reads a ``ClosedLoopPlan`` as JSON from standard input and
writes a ``LoadResult`` as JSON to standard output. ``benchmarks.own_cost`` measures its own cost.
"""

import sys
import time
from functools import partial
from itertools import count, cycle, islice

from loadtest.engine import Sender, closed_loop
from loadtest.http_client import with_head
from loadtest.recorder import RIGHT, Outcome
from loadtest.tuning.load import PLAN, RESULT, ClosedLoopPlan, Exchange, LoadResult

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000


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
        self._result = LoadResult()

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
        result.latencies_ms.append((outcome.end_ns - outcome.sent_ns) / _NS_PER_MS)
        if self._keeps:
            sent, end = (one + self._epoch_ns for one in (outcome.sent_ns, outcome.end_ns))
            result.exchanges.append(Exchange(client, sent, end, outcome.header))

    def result(self) -> LoadResult:
        """Return all that was measured."""
        until_ns = self._last_ns if self.end_ns == sys.maxsize else self.end_ns
        self._result.measured_s = (until_ns - self._start_ns) / _NS_PER_S
        if self._cpu_from is not None:
            self._result.client_cpu_s = time.process_time() - self._cpu_from
        return self._result


def run(plan: ClosedLoopPlan) -> LoadResult:
    """Send the load and wait until every client has its last response."""
    rendered = [with_head(request, plan.url, plan.headers) for request in plan.requests]
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
    plan = PLAN.validate_json(sys.stdin.buffer.read())
    sys.stdout.buffer.write(RESULT.dump_json(run(plan)))


if __name__ == "__main__":
    _main()
