"""What a run reports of a server is the truth, which is known by calculation.

The server's queue is calculated, too, so a busy machine delays single answers and no more.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.loops import arrivals_of
from loadtest.plan import LoadPlan
from loadtest.record import RunRecord, decoded
from loadtest.run import run_load
from tests.unit.loadtest.conftest import (
    ONE_KIND,
    PERCENTILES,
    counted,
    errors,
    known_server,
    percentiles_ms,
    right,
)

SERVICE_MS = 150.0
"""So long that what a busy machine adds, a few milliseconds, is little beside it."""
RATE = 0.7 * 1000 / SERVICE_MS
"""Requests/s; the server is busy 70 % of the time."""
STALL_AT, STALL_MS = 60, 1000.0
SECONDS = 30


@dataclass(frozen=True)
class Run:
    """What was reported, and what the server knows."""

    record: RunRecord
    intended_s: np.ndarray
    """When each request was meant to start, since the start."""
    arrived_s: np.ndarray
    """When the server had it: later than intended, by what the machine did meanwhile."""


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
        intended = np.array(list(arrivals_of(plan, 0)) if plan.rate else [])
        # One request goes before all others: a look whether the server answers.
        arrived = np.loadtxt(log, dtype=np.int64)[1:, 0] / 1e9 - started[0]
        return Run(record, intended, arrived)

    opened, stall = {"rate": RATE}, {"stall_at": STALL_AT + 1, "stall_ms": STALL_MS}
    with ThreadPoolExecutor() as pool:
        submitted = [
            pool.submit(ask, "constant", {"workers": 1000}, {"rate": 20}),
            pool.submit(ask, "queue", {}, opened),
            pool.submit(ask, "stalled", stall, opened),
            pool.submit(ask, "closed", stall, {"loop": "closed", "clients": 1}),
        ]
    return Runs(*(one.result() for one in submitted))


def sojourn_ms(
    intended_s: np.ndarray, services_ms: np.ndarray, arrived_s: np.ndarray | None = None
) -> np.ndarray:
    """Time from the intended start to the end of service in a queue with one worker.

    Lindley's recursion: service begins when a request has come and the one before it is done.
    """
    free = 0.0
    sojourns = []
    arrived_s = intended_s if arrived_s is None else arrived_s
    for intended, arrived, service in zip(
        intended_s * 1000, arrived_s * 1000, services_ms, strict=True
    ):
        free = max(arrived, free) + service
        sojourns.append(free - intended)
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


def test_without_a_queue_latency_is_the_service_time(runs: Runs) -> None:
    assert errors(runs.constant.record) == {}
    found = percentiles_ms(runs.constant.record)
    assert found[50] == pytest.approx(SERVICE_MS, rel=0.02)
    lasted_ms = SERVICE_MS + 1000 * (runs.constant.arrived_s - runs.constant.intended_s)
    assert found == pytest.approx(truth_ms(lasted_ms), rel=0.1)


@pytest.mark.parametrize("stall_ms", [0.0, STALL_MS])
def test_percentiles_of_a_queue_are_those_of_the_calculation(runs: Runs, stall_ms: float) -> None:
    run = runs.stalled if stall_ms else runs.queue
    assert counted(run.record, "intended") == right(run.record) == len(run.intended_s)
    services = services_ms(run, stall_ms)
    found = percentiles_ms(run.record)
    as_served = truth_ms(sojourn_ms(run.intended_s, services, run.arrived_s))
    assert found == pytest.approx(as_served, rel=0.02)
    # Without what the busy machine did between the intended start and the server.
    assert found == pytest.approx(truth_ms(sojourn_ms(run.intended_s, services)), rel=0.05)


def test_a_stall_is_seen_by_all_who_come_meanwhile(runs: Runs) -> None:
    assert percentiles_ms(runs.stalled.record)[99] > STALL_MS
    slow = [parts for parts in runs.stalled.record.load if decoded(parts.latency).max_value > 1e6]
    assert len(slow) > 1


def test_a_closed_loop_misses_the_same_stall(runs: Runs) -> None:
    """Coordinated omission: its only client waits, and so meets the stall once."""
    closed = runs.closed.record
    assert right(closed) > 150
    assert max(decoded(part.latency).max_value for part in closed.load) > STALL_MS * 1000
    assert percentiles_ms(closed)[99] < 1.5 * SERVICE_MS
