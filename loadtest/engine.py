"""The load engine: an open and a closed loop that send requests and record every outcome.

In an open loop, requests arrive at their own times, as shoppers do. In a closed loop, each
client waits for its response first, so a server that stalls receives fewer requests, and those
that would have met the stall are never measured: coordinated omission (Tene, *How NOT to
measure latency*).
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count, cycle

import gevent
import numpy as np

from loadtest.http_client import FAILURES, Connection, address_of, request_head
from loadtest.recorder import DROPPED, RIGHT, Observations
from loadtest.requests import Rendered
from loadtest.scenarios import LoadPlan, Steady, poisson_arrivals

_TIMEOUT = "timeout"
_NS_PER_S = 1_000_000_000
_NS_PER_US = 1_000
_PAUSE_S = 0.05
"""Of a client that got no answer, which would else try again at once, and for ever."""
_MOST_AT_ONCE = 16
"""Overdue arrivals that are sent without a look at the answers that have come."""
TRAFFIC, _ARRIVALS, _WARM_UP, _THINKING = range(4)
"""Random streams: each has its own seed, so a longer warm-up changes nothing else."""


def fresh_numbers(stream: int, processes: int) -> Iterator[int]:
    """Numbers of 16 digits that no other process draws, nor any run before or after.

    They begin with the microseconds since the epoch, and are drawn more slowly than those pass.
    """
    return count(time.time_ns() // _NS_PER_US + stream, processes)


class Sender:
    """Keeps the connections, and what was observed.

    Requests that are meant to start before ``start_ns`` warm the server up: they are sent, and
    not observed.
    """

    def __init__(
        self, plan: LoadPlan, pool: Sequence[Rendered], numbers: Iterator[int], in_flight: int
    ) -> None:
        """``in_flight`` is how many requests of ``pool`` may be under way at a time."""
        # A head is the same every time, since its body's length is.
        wired = [
            request.after_head(
                request_head(
                    plan.url, request.path, request.content_type, request.size, plan.headers
                )
            )
            for request in pool
        ]
        self._measured, self._warming = cycle(wired), cycle(wired[::-1])
        self._numbers = numbers
        self._address = address_of(plan.url)
        self._timeout_s = plan.timeout_s
        self._most = in_flight
        self._idle: list[Connection] = []
        self._under_way = 0
        self._seconds: Counter[int] = Counter()
        self._latest_second = 0
        self._broken: Exception | None = None
        self.observed = Observations()
        self.start_ns = 0
        """When what is measured begins, by ``time.monotonic_ns``."""

    def offer(self, intended_ns: int) -> None:
        """Send the next request beside those under way, or drop it when they are too many."""
        if self._under_way < self._most:
            gevent.spawn(self._send_guarded, intended_ns, *self._next(intended_ns))
            return
        request, second = self._next(intended_ns)
        self._end(second)
        if second >= 0:
            self.observed.add(second, request.kind, DROPPED)

    def send(self) -> bool:
        """Send the next request now, wait for its fate, and say whether it was answered."""
        now_ns = time.monotonic_ns()
        return self._send(now_ns, *self._next(now_ns))

    def unfinished_from(self) -> int:
        """The first second of which more may be observed.

        Raises:
            Exception: whatever made a request impossible to send, which is a defect.
        """
        if self._broken is not None:
            raise self._broken
        return min(self._seconds, default=self._latest_second)

    def wait(self) -> None:
        """Until the last answer has come, or its time is over."""
        while self._under_way:
            gevent.sleep(0.01)
        for connection in self._idle:
            connection.close()

    def _next(self, intended_ns: int) -> tuple[Rendered, int]:
        """The request whose turn it is, and the second that it belongs to."""
        self._under_way += 1
        second = (intended_ns - self.start_ns) // _NS_PER_S
        if second < 0:
            return next(self._warming), second
        self._latest_second = second
        self._seconds[second] += 1
        return next(self._measured), second

    def _end(self, second: int) -> None:
        self._under_way -= 1
        if second < 0:
            return
        self._seconds[second] -= 1
        if not self._seconds[second]:
            del self._seconds[second]

    def _send_guarded(self, intended_ns: int, request: Rendered, second: int) -> None:
        try:
            self._send(intended_ns, request, second)
        except Exception as error:  # Of a greenlet that nobody waits for.
            self._broken = error

    def _send(self, intended_ns: int, request: Rendered, second: int) -> bool:
        connection = self._idle.pop() if self._idle else Connection(self._address, None)
        if connection.is_stale():
            connection.close()
        body = request.body(next(self._numbers))
        sent_ns = time.monotonic_ns()
        status, outcome = self._exchange(connection, body, request.expected)
        end_ns = time.monotonic_ns()
        self._idle.append(connection)
        self._end(second)
        if second >= 0:
            self.observed.add(
                second,
                request.kind,
                outcome,
                (end_ns - intended_ns) // _NS_PER_US,
                (end_ns - sent_ns) // _NS_PER_US,
                (sent_ns - intended_ns) // _NS_PER_US,
            )
        return status > 0

    def _exchange(self, connection: Connection, request: bytes, expected: int) -> tuple[int, str]:
        """The answer's status, 0 without one, and how it counts."""
        try:
            with gevent.Timeout(self._timeout_s):
                response = connection.post(request)
                response.read()
        except gevent.Timeout:
            connection.close()
            return 0, _TIMEOUT
        except FAILURES as error:
            connection.close()
            return 0, type(error).__name__
        connection.settle(response)
        status: int = response.get_code()
        return status, RIGHT if status == expected else str(status)


def sleep_until(moment_ns: int) -> None:
    """Let others work until this moment of ``time.monotonic_ns``."""
    # The event loop may wake up early: its clock is read once per turn.
    while (left_ns := moment_ns - time.monotonic_ns()) > 0:
        gevent.sleep(left_ns / _NS_PER_S)


def arrivals_of(plan: LoadPlan, stream: int) -> Iterator[float]:
    """The moments, in seconds since the start, at which one of its processes sends."""
    random = np.random.default_rng([plan.seed, stream, _ARRIVALS])
    return poisson_arrivals(plan.shape, (plan.rate or 0.0) / plan.processes, plan.seconds, random)


def open_loop(plan: LoadPlan, stream: int, sender: Sender, start_ns: int) -> None:
    """Send this process's share of the plan's arrivals; those that are overdue at once.

    Args:
        plan: of an open loop.
        stream: which of its processes this is.
        sender: sends them.
        start_ns: when what is measured begins, by ``time.monotonic_ns``.
    """
    rate = (plan.rate or 0.0) / plan.processes
    at_start = rate * float(plan.shape.factor(np.zeros(1))[0])
    random = np.random.default_rng([plan.seed, stream, _WARM_UP])
    warm_up = poisson_arrivals(Steady(), at_start, plan.warm_up_s, random)
    _offer(sender, warm_up, start_ns - int(plan.warm_up_s * _NS_PER_S))
    _offer(sender, arrivals_of(plan, stream), start_ns)
    sleep_until(start_ns + int(plan.seconds * _NS_PER_S))


def _offer(sender: Sender, moments: Iterator[float], start_ns: int) -> None:
    overdue = 0
    for moment in moments:
        intended_ns = start_ns + int(moment * _NS_PER_S)
        if intended_ns > time.monotonic_ns():
            sleep_until(intended_ns)
            overdue = 0
        else:
            overdue += 1
            if overdue % _MOST_AT_ONCE == 0:
                gevent.sleep(0)
        sender.offer(intended_ns)


def closed_loop(plan: LoadPlan, stream: int, sender: Sender, start_ns: int) -> None:
    """Let this process's share of the plan's clients send, each after its last answer.

    Args and moments are those of ``open_loop``.
    """
    end_ns = start_ns + int(plan.seconds * _NS_PER_S)
    clients = [
        gevent.spawn(_client, plan, number, sender, end_ns)
        for number in range(stream, plan.clients or 0, plan.processes)
    ]
    gevent.joinall(clients, raise_error=True)


def _client(plan: LoadPlan, number: int, sender: Sender, end_ns: int) -> None:
    random = np.random.default_rng([plan.seed, number, _THINKING])
    # They do not all begin at the same moment.
    next_ns = time.monotonic_ns() + int(random.random() * plan.think_s * _NS_PER_S)
    while next_ns < end_ns:
        sleep_until(next_ns)
        answered = sender.send()
        pause_s = float(random.exponential(plan.think_s)) if answered else _PAUSE_S
        next_ns = time.monotonic_ns() + int(pause_s * _NS_PER_S)
