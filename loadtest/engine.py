"""The load engine: an open and a closed loop, and the sender that both use.

In an open loop, requests arrive at their own times, as shoppers do. In a closed loop, each
client waits for its response first, so a server that stalls receives fewer requests, and those
that would have met the stall are never measured: coordinated omission (Tene, *How NOT to
measure latency*).

The processes of a load test (``loadtest.generator``), Locust's users (``loadtest.locustfile``)
and the client of ``./run tune`` (``loadtest.closed_loop``) all send through it.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count

import gevent
import numpy as np

from loadtest.http_client import FAILURES, HttpConnection, address_of
from loadtest.recorder import DROPPED, RIGHT, WRONG, Outcome
from loadtest.requests import Rendered

_TIMEOUT = "timeout"
_NS_PER_S = 1_000_000_000
_NS_PER_US = 1_000
_PAUSE_S = 0.05
"""Pause of a client after no response: an immediate retry would loop without end."""
_MAX_AT_ONCE = 16
"""Overdue arrivals that are sent before responses are looked at again."""


def fresh_numbers(stream: int, processes: int) -> Iterator[int]:
    """Return numbers of 16 digits that no other process draws, in this run or any other.

    They start with the microseconds since the epoch and are drawn more slowly than these pass.
    """
    return count(time.time_ns() // _NS_PER_US + stream, processes)


def sleep_until(time_ns: int) -> None:
    """Let other greenlets run until this time of ``time.monotonic_ns``."""
    # The event loop may wake up early: its clock is read once per turn.
    while (left_ns := time_ns - time.monotonic_ns()) > 0:
        gevent.sleep(left_ns / _NS_PER_S)


class Sender:
    """Sends requests to one server, reuses connections and records every outcome."""

    def __init__(
        self,
        url: str,
        record: Callable[[Outcome], None],
        numbers: Iterator[int],
        *,
        timeout_s: float,
        max_in_flight: int = 1,
        kept_header: str | None = None,
        connect: Callable[[], HttpConnection] | None = None,
    ) -> None:
        """Create a sender without connections.

        Args:
            url: ``http://HOST:PORT``.
            record: called with the outcome of each request.
            numbers: make fresh requests fresh; see ``fresh_numbers``.
            timeout_s: for the whole response.
            max_in_flight: requests that ``offer`` has in flight at most.
            kept_header: a response header that outcomes keep.
            connect: makes each connection; None makes plain ones to ``url``.
        """
        self._connect = connect or partial(HttpConnection, address_of(url))
        self._record = record
        self._numbers = numbers
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._kept_header = kept_header
        self._idle: list[HttpConnection] = []
        self._in_flight: dict[int, int] = {}
        """Intended start of each request, by its number."""
        self._latest_ns: int | None = None
        self._defect: Exception | None = None

    def offer(self, request: Rendered, intended_ns: int) -> None:
        """Send ``request``, with its head, without waiting; drop it if too many are in flight.

        It was meant to start at ``intended_ns`` of ``time.monotonic_ns``.
        """
        if len(self._in_flight) >= self._max_in_flight:
            self._latest_ns = intended_ns
            now_ns = time.monotonic_ns()
            self._record(Outcome(request, intended_ns, now_ns, now_ns, DROPPED))
            return
        gevent.spawn(self._send_in_background, request, intended_ns, self._begin(intended_ns))

    def send(self, request: Rendered) -> Outcome:
        """Send ``request`` now and wait for its outcome."""
        now_ns = time.monotonic_ns()
        return self._send(request, now_ns, self._begin(now_ns))

    def unfinished_from_ns(self) -> int | None:
        """Return the earliest intended start that may still be recorded; None before the first.

        Raises:
            Exception: an internal error made a request impossible to send.
        """
        if self._defect is not None:
            raise self._defect
        return min(self._in_flight.values(), default=self._latest_ns)

    def wait(self) -> None:
        """Wait until no request is in flight, then close all connections."""
        while self._in_flight:
            gevent.sleep(0.01)
        for connection in self._idle:
            connection.close()

    def _begin(self, intended_ns: int) -> int:
        number = next(self._numbers)
        self._in_flight[number] = self._latest_ns = intended_ns
        return number

    def _send_in_background(self, request: Rendered, intended_ns: int, number: int) -> None:
        try:
            self._send(request, intended_ns, number)
        except Exception as error:  # Nobody waits for this greenlet.
            self._defect = error

    def _send(self, request: Rendered, intended_ns: int, number: int) -> Outcome:
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            outcome = self._exchange(connection, request, intended_ns, number)
        except BaseException:  # The greenlet is killed, or an internal error.
            connection.close()
            raise
        finally:
            del self._in_flight[number]
        self._idle.append(connection)
        self._record(outcome)
        return outcome

    def _exchange(
        self, connection: HttpConnection, request: Rendered, intended_ns: int, number: int
    ) -> Outcome:
        if connection.is_stale():
            connection.close()
        data = request.body(number)
        sent_ns = time.monotonic_ns()
        result = ""
        status = 0
        body = b""
        header: str | None = None
        try:
            with gevent.Timeout(self._timeout_s):
                response = connection.post(data)
                body = bytes(response.read())
        except gevent.Timeout:
            result = _TIMEOUT
        except FAILURES as error:
            result = type(error).__name__
        end_ns = time.monotonic_ns()
        if result:
            connection.close()
        else:
            connection.settle(response)
            status = response.get_code()
            result = RIGHT if status == request.expected else str(status)
            if result == RIGHT and request.check is not None:
                result = _checked(request.check, body)
            if self._kept_header is not None:
                kept = response.get(self._kept_header)
                header = kept if isinstance(kept, str) else None
        size = len(body)
        return Outcome(request, intended_ns, sent_ns, end_ns, result, status, size, header)


def _checked(check: Callable[[bytes], str], body: bytes) -> str:
    try:
        return check(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        return WRONG


def open_loop(arrivals_s: Iterable[float], start_ns: int, offer: Callable[[int], None]) -> None:
    """Offer a request at each arrival, overdue ones at once.

    ``arrivals_s`` are ascending, since the start by ``time.monotonic_ns``. ``offer`` does not wait.
    """
    overdue = 0
    for arrival_s in arrivals_s:
        intended_ns = start_ns + int(arrival_s * _NS_PER_S)
        if intended_ns > time.monotonic_ns():
            sleep_until(intended_ns)
            overdue = 0
        else:
            overdue += 1
            if overdue % _MAX_AT_ONCE == 0:
                gevent.sleep(0)
        offer(intended_ns)


def closed_loop(
    clients: Iterable[int],
    send: Callable[[int], Outcome | None],
    *,
    think_s: float = 0.0,
    seed: tuple[int, ...] = (),
    end_ns: int = sys.maxsize,
) -> None:
    """Run clients, each of which sends its next request after the response to its last.

    ``send`` returns None to end a client. Pauses between a response and the next request are
    exponential, with a mean of ``think_s``. No request starts after ``end_ns`` of
    ``time.monotonic_ns``.
    """
    running = [
        gevent.spawn(_client, number, send, think_s, np.random.default_rng((*seed, number)), end_ns)
        for number in clients
    ]
    gevent.joinall(running, raise_error=True)


def _client(
    number: int,
    send: Callable[[int], Outcome | None],
    think_s: float,
    random: np.random.Generator,
    end_ns: int,
) -> None:
    # Clients do not all start at the same time.
    pause_s = float(random.random()) * think_s
    while time.monotonic_ns() + pause_s * _NS_PER_S < end_ns:
        if pause_s:
            gevent.sleep(pause_s)
        outcome = send(number)
        if outcome is None:
            return
        if not outcome.status:
            pause_s = _PAUSE_S
        elif think_s:
            pause_s = float(random.exponential(think_s))
        else:
            pause_s = 0.0
