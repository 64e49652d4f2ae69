"""The two ways to send a load: open and closed.

In an open loop requests come when they come, as shoppers do. In a closed loop each client waits
for its answer first, so a server that stalls is asked less, and the requests that would have
met the stall are never measured: coordinated omission (Tene, *How NOT to measure latency*).
"""

import time
from collections.abc import Iterator

import gevent
import numpy as np

from loadtest.arrivals import poisson_arrivals
from loadtest.plan import LoadPlan
from loadtest.sender import Sender
from loadtest.shapes import Steady

__all__ = ["arrivals_of", "closed_loop", "open_loop", "sleep_until"]

_NS_PER_S = 1_000_000_000
_PAUSE_S = 0.05
"""Of a client that got no answer, which would else try again at once, and for ever."""
_MOST_AT_ONCE = 16
"""Overdue arrivals that are sent without a look at the answers that have come."""
_ARRIVALS, _WARM_UP, _THINKING = 1, 2, 3
"""Each is drawn from numbers of its own: a longer warm-up changes nothing else."""


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
