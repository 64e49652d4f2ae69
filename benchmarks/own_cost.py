"""Cost and capacity of the load engine, against a server that does nothing.

``python -m benchmarks.own_cost [BYTES [CLIENTS]]`` prints the throughput of
``loadtest.closed_loop`` and its CPU time per request. ``python -m benchmarks.own_cost open RATE …``
prints, for each rate, how much of it an open loop of one process delivers, and how late.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.servers import noop_server
from loadtest.closed_loop import run
from loadtest.record import RunRecord, decoded
from loadtest.requests import Rendered
from loadtest.run import run_load
from loadtest.scenarios import LoadPlan
from loadtest.traffic import TrafficSettings
from loadtest.tuning.load import ClosedLoopPlan, LoadResult

_BYTES, _CLIENTS = 20_000, 32
_SECONDS = 3.0
_OPEN_SECONDS = 10.0
_OPEN = "open"
_US_PER_MS = 1000


def measure_closed(body_bytes: int, clients: int, seconds: float = _SECONDS) -> LoadResult:
    """Send bodies of ``body_bytes`` from ``clients``."""
    media_type = "application/octet-stream"
    requests = [Rendered("nothing", "/predictions/nothing", media_type, bytes(body_bytes))]
    with noop_server() as url:
        return run(ClosedLoopPlan(url, requests, clients, seconds=seconds, warm_up_s=seconds / 5))


def measure_open(rate: float, seconds: float = _OPEN_SECONDS, processes: int = 1) -> RunRecord:
    """Send histories of a few ids at a Poisson rate."""
    traffic = TrafficSettings(mix={"recommend history": 1}, cold_share=0, bad_share=0)
    with noop_server() as url, tempfile.TemporaryDirectory() as folder:
        rows = "\n".join(f"item-{number},thing" for number in range(100))
        (Path(folder) / "items.csv").write_text(f"id,title\n{rows}\n")
        plan = LoadPlan(
            url=url,
            catalog=Path(folder),
            seconds=seconds,
            warm_up_s=1,
            rate=rate,
            traffic=traffic,
            processes=processes,
        )
        return run_load(plan, command="python -m benchmarks.own_cost")


class Delivered:
    """Share of a rate that was delivered."""

    def __init__(self, record: RunRecord) -> None:
        lateness = decoded(record.generator.lateness)
        sent = sum(decoded(part.latency).total_count for part in record.load)
        self.intended_per_s = sum(part.intended for part in record.load) / record.seconds
        self.answered_per_s = sent / record.seconds
        self.lateness_ms = {
            percent: lateness.get_value_at_percentile(percent) / _US_PER_MS
            for percent in (50.0, 99.0)
        }
        self.cpu_percent = record.generator.cpu_percent
        self.limited = record.generator.limited


def _print_closed(body_bytes: int, clients: int) -> None:
    result = measure_closed(body_bytes, clients)
    if not result.latencies_ms:
        raise SystemExit(f"no request succeeded: {result.failures}")
    print(
        f"{clients} clients, {body_bytes} bytes each: "
        f"{result.per_second:.0f} requests/s, "
        f"{result.client_cpu_s / len(result.latencies_ms) * 1e6:.0f} µs of CPU time per request"
    )


def _print_open(rate: float) -> None:
    found = Delivered(measure_open(rate))
    print(
        f"{rate:.0f} requests/s: {found.intended_per_s:.0f} arrivals/s, "
        f"{found.answered_per_s:.0f} answered, sent "
        f"{found.lateness_ms[50.0]:.2f} ms late (median), {found.lateness_ms[99.0]:.2f} ms (p99), "
        f"{found.cpu_percent:.0f} % of a core" + (f"; {found.limited}" if found.limited else "")
    )


def _main(words: list[str]) -> None:
    if words[:1] == [_OPEN]:
        for rate in map(float, words[1:]):
            _print_open(rate)
        return
    body_bytes, clients = [*map(int, words), *(_BYTES, _CLIENTS)[len(words) :]]
    _print_closed(body_bytes, clients)


if __name__ == "__main__":
    _main(sys.argv[1:])
