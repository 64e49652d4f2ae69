"""What a run reports of a server is the truth, which is known by calculation.

The server's queue is calculated, too, so a busy machine delays single answers and no more; by
how much it did is in the server's log, and the only thing that is put up with beyond 2 %.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.servers import known_server
from loadtest.record import RunRecord, decoded
from loadtest.run import run_load
from loadtest.scenarios import LoadPlan
from tests.unit.loadtest.conftest import (
    ONE_KIND,
    PERCENTILES,
    counted,
    errors,
    percentiles_ms,
    right,
)

# So that processes that share the tests make the runs once.
pytestmark = pytest.mark.xdist_group("truth")

SERVICE_MS = 150.0
"""So long that what a busy machine adds, a few milliseconds, is little beside it."""
RATE = 0.7 * 1000 / SERVICE_MS
"""Requests/s; the server is busy 70 % of the time."""
STALL_AT, STALL_MS = 30, 1000.0
SECONDS = 15


@dataclass(frozen=True)
class Run:
    """What was reported, and what the server knows."""

    record: RunRecord
    intended_s: np.ndarray
    """When each request was meant to start, since the start."""
    arrived_s: np.ndarray
    """When the server had it: later than intended, by what the machine did meanwhile."""
    answered_s: np.ndarray
    """When the server sent the answer."""
    woken_ms: np.ndarray
    """How much later the server woke up to send it than it had asked for."""

    @property
    def delay_ms(self) -> float:
        """The most that the machine held up a request before the server had it."""
        return 1000 * float((self.arrived_s - self.intended_s).max())

    @property
    def wake_up_ms(self) -> float:
        """What a program had to wait for the processor on this machine meanwhile."""
        return float(np.percentile(self.woken_ms, 95))


@dataclass(frozen=True)
class Runs:
    """They are idle most of the time, and so can be at the same time."""

    constant: Run
    queue: Run
    stalled: Run
    closed: Run


@pytest.fixture(scope="module")
def runs(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("logs")

    def ask(name: str, server: dict[str, Any], load: dict[str, Any]) -> Run:
        started: list[float] = []
        log = folder / name
        with known_server(service_ms=SERVICE_MS, log=log, **server) as url:
            plan = LoadPlan(
                url=url, catalog=shop, seconds=SECONDS, warm_up_s=0, traffic=ONE_KIND, **load
            )
            record = run_load(plan, command="test", started=started.append)
        intended = np.array(list(plan.arrivals(0)) if plan.rate else [])
        # One request goes before all others: a look whether the server answers.
        moments = np.sort(np.loadtxt(log, dtype=np.int64)[1:], axis=0)
        arrived, done, answered = (moments / 1e9 - started[0]).T
        return Run(record, intended, arrived, answered, 1000 * (answered - done))

    opened, stall = {"rate": RATE}, {"stall_at": STALL_AT + 1, "stall_ms": STALL_MS}
    with ThreadPoolExecutor() as pool:
        submitted = [
            pool.submit(ask, "constant", {"workers": 1000}, {"rate": 20}),
            pool.submit(ask, "queue", {}, opened),
            pool.submit(ask, "stalled", stall, opened),
            pool.submit(ask, "closed", stall, {"loop": "closed", "clients": 1}),
        ]
    return Runs(*(one.result() for one in submitted))


def sojourn_ms(arrivals_s: np.ndarray, services_ms: np.ndarray) -> np.ndarray:
    """Time from arrival to the end of service in a queue with one worker.

    Lindley's recursion: service begins when a request has come and the one before it is done.
    """
    free = 0.0
    sojourns = []
    for arrival, service in zip(arrivals_s * 1000, services_ms, strict=True):
        free = max(arrival, free) + service
        sojourns.append(free - arrival)
    return np.array(sojourns)


def truth_ms(sojourns: np.ndarray) -> dict[float, float]:
    """Percentiles by the rank that HdrHistogram takes, to the nearest."""
    ordered = np.sort(sojourns)
    return {q: float(ordered[int(q / 100 * len(ordered) + 0.5) - 1]) for q in PERCENTILES}


def services_ms(run: Run, stall_ms: float = 0.0) -> np.ndarray:
    services = np.full(len(run.intended_s), SERVICE_MS)
    services[STALL_AT - 1] += stall_ms
    return services


def test_the_calculation_agrees_with_queueing_theory() -> None:
    """Pollaczek and Khinchine: the mean wait of M/D/1 is rho S / 2 (1 - rho)."""
    random = np.random.default_rng(5)
    arrivals = np.cumsum(random.exponential(1 / RATE, 400_000))
    sojourns = sojourn_ms(arrivals, np.full(len(arrivals), SERVICE_MS))
    busy = RATE * SERVICE_MS / 1000
    wait = busy * SERVICE_MS / (2 * (1 - busy))
    assert sojourns.mean() - SERVICE_MS == pytest.approx(wait, rel=0.02)
    # Of the requests, so many find it idle (PASTA).
    assert np.mean(sojourns <= SERVICE_MS + 1e-6) == pytest.approx(1 - busy, rel=0.02)


def within(found: dict[float, float], truth: dict[float, float], put_up_with_ms: float) -> None:
    """By 2 %, and from above also by what the machine is known to have added."""
    for percent, true_ms in truth.items():
        most_ms = 1.02 * true_ms + put_up_with_ms
        assert 0.98 * true_ms <= found[percent] <= most_ms, (percent, found, truth)


def test_without_a_queue_latency_is_the_service_time(runs: Runs) -> None:
    run = runs.constant
    assert errors(run.record) == {}
    truth = dict.fromkeys(PERCENTILES, SERVICE_MS)
    within(percentiles_ms(run.record), truth, run.delay_ms + 2 * run.woken_ms.max())


@pytest.mark.parametrize("stall_ms", [0.0, STALL_MS])
def test_percentiles_of_a_queue_are_those_of_the_calculation(runs: Runs, stall_ms: float) -> None:
    run = runs.stalled if stall_ms else runs.queue
    assert counted(run.record, "intended") == right(run.record) == len(run.intended_s)
    # Lindley's recursion is monotone: delays of arrivals add at most the greatest of them.
    truth = truth_ms(sojourn_ms(run.intended_s, services_ms(run, stall_ms)))
    within(percentiles_ms(run.record), truth, run.delay_ms + 2 * run.wake_up_ms)


@pytest.mark.parametrize("stall_ms", [0.0, STALL_MS])
def test_percentiles_are_those_of_what_the_server_really_did(runs: Runs, stall_ms: float) -> None:
    run = runs.stalled if stall_ms else runs.queue
    truth = truth_ms(1000 * (run.answered_s - run.intended_s))
    within(percentiles_ms(run.record), truth, run.wake_up_ms)


def test_the_lateness_that_is_admitted_is_part_of_the_delay(runs: Runs) -> None:
    """A request is sent before it has come."""
    lateness = decoded(runs.queue.record.generator.lateness)
    assert lateness.total_count == len(runs.queue.intended_s)
    assert lateness.get_max_value() / 1000 <= runs.queue.delay_ms * 1.002


def test_a_stall_is_seen_by_all_who_come_meanwhile(runs: Runs) -> None:
    assert percentiles_ms(runs.stalled.record)[99] > STALL_MS
    slow = [parts for parts in runs.stalled.record.load if decoded(parts.latency).max_value > 1e6]
    assert len(slow) > 1


def test_a_closed_loop_misses_the_same_stall(runs: Runs) -> None:
    """Coordinated omission: its only client waits, and so meets the stall once."""
    closed = runs.closed.record
    assert right(closed) > 70
    assert max(decoded(part.latency).max_value for part in closed.load) > STALL_MS * 1000
    assert percentiles_ms(closed)[99] < STALL_MS / 2
