"""Records of runs whose every latency is known."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from loadtest.record import (
    Generator,
    KindSecond,
    RunRecord,
    ServerSample,
    WorkerSample,
    empty_histogram,
    encoded,
)

__all__ = ["made_record", "made_second", "queue_latencies_ms", "queue_record", "sample"]

KIND = "recommend history"


def histogram(latencies_ms: Sequence[float]) -> str:
    found = empty_histogram()
    for value in latencies_ms:
        found.record_value(max(round(value * 1e3), 1))
    return encoded(found)


def made_second(
    second: int,
    latencies_ms: Sequence[float],
    *,
    kind: str = KIND,
    errors: Mapping[str, int] | None = None,
    dropped: int = 0,
    late: int = 0,
    service_ms: Sequence[float] | None = None,
) -> KindSecond:
    errors = errors or {}
    return KindSecond(
        second=second,
        kind=kind,
        intended=len(latencies_ms) + sum(errors.values()) + dropped,
        late=late,
        dropped=dropped,
        errors=errors,
        latency=histogram(latencies_ms),
        service=histogram(latencies_ms if service_ms is None else service_ms),
    )


def made_record(
    load: Sequence[KindSecond],
    *,
    seconds: float | None = None,
    server: Sequence[ServerSample] = (),
    limited: str = "",
    **further: Any,
) -> RunRecord:
    table = {
        "scenario": "steady",
        "loop": "open",
        "command": "./run loadtest steady",
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "url": "http://127.0.0.1:8080",
        "models": {"recommender": "1.0"},
        "seconds": seconds or max((part.second for part in load), default=0) + 1,
        "settings": {"rate": 50.0, "seed": 7},
        **further,
    }
    return RunRecord(
        **table,
        load=tuple(load),
        server=tuple(server),
        generator=Generator(
            processes=1, cpu_percent=12.0, lateness=histogram([0.1]), limited=limited
        ),
    )


def sample(at_s: float, pids: Mapping[str, int] | None, **further: Any) -> ServerSample:
    """``pids`` by model; None when the server is away."""
    if pids is None:
        return ServerSample(at_s=at_s, reachable=False)
    workers = tuple(
        WorkerSample(
            model=model,
            worker="9000",
            pid=pid,
            status="READY",
            memory_bytes=300_000_000 + pid,
            cpu_percent=40.0,
        )
        for model, pid in pids.items()
    )
    return ServerSample(at_s=at_s, reachable=True, workers=workers, **further)


def queue_latencies_ms(arrivals_s: np.ndarray, service_s: np.ndarray) -> np.ndarray:
    """Latency of each request at one first-come, first-served server.

    Lindley's recursion, unrolled: the n-th is done at the greatest of a_k + s_k + … + s_n.
    """
    work = np.cumsum(service_s)
    done = work + np.maximum.accumulate(arrivals_s - (work - service_s))
    return (done - arrivals_s) * 1e3


def queue_record(
    rate: float,
    seconds: int,
    *,
    seed: int,
    service_s: float = 0.01,
    noise: float = 0.1,
    drift: float = 0.0,
    arrivals_seed: int | None = None,
    **further: Any,
) -> RunRecord:
    """Poisson arrivals at one server whose service times are noisy, and drift.

    Args:
        rate: requests/s.
        seconds: of the run.
        seed: of the service times.
        service_s: their mean.
        noise: their spread, as a share, from one request to the next.
        drift: that of a slow change, the same for the requests of some seconds (AR(1) of the
            seconds, with a coefficient of 0.8).
        arrivals_seed: of the arrivals; ``seed`` without it.
        further: fields of the record.
    """
    when = np.random.default_rng(seed if arrivals_seed is None else arrivals_seed)
    arrivals = np.sort(when.uniform(0, seconds, when.poisson(rate * seconds)))
    how_long = np.random.default_rng((seed, 1))
    slow = np.zeros(seconds)
    for second in range(1, seconds):
        slow[second] = 0.8 * slow[second - 1] + 0.6 * how_long.normal()
    second_of = np.minimum(arrivals.astype(int), seconds - 1)
    spread = np.exp(noise * how_long.normal(size=len(arrivals)) + drift * slow[second_of])
    latencies = queue_latencies_ms(arrivals, service_s * spread)
    load = [
        made_second(second, latencies[second_of == second].tolist()) for second in range(seconds)
    ]
    settings = {"rate": rate, "seed": seed if arrivals_seed is None else arrivals_seed}
    return made_record(load, seconds=seconds, **{"settings": settings, **further})
