"""A small shop, servers whose behaviour is known, and plans to send to them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from loadtest.record import RunRecord, decoded, empty_histogram
from loadtest.scenarios import LoadPlan
from loadtest.traffic import TrafficSettings
from newshelf.sample.build import draw_sample
from tests.unit.loadtest.server import Server

MakePlan = Callable[..., LoadPlan]
Start = Callable[..., Server]

ONE_KIND = TrafficSettings(mix={"recommend history": 1}, cold_share=0, bad_share=0, requests=50)
"""Small requests of one kind, so that there is one look at the server before the run."""


PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops") / "shop"
    draw_sample(folder, products=60, shoppers=30)
    return folder


@pytest.fixture
def plan(shop: Path) -> MakePlan:
    def make(url: str, **changes: Any) -> LoadPlan:
        usual: dict[str, Any] = {
            "catalog": shop, "seconds": 1.0, "warm_up_s": 0.0, "traffic": ONE_KIND,
        }  # fmt: skip
        if changes.get("loop") != "closed":
            usual["rate"] = 50.0
        return LoadPlan(url=url, **usual | changes)

    return make


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[Server] = []

    def run_server(delay_s: float = 0.0, statuses: tuple[int, ...] = (200,)) -> Server:
        server = Server(delay_s, list(statuses))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield run_server
    for server in servers:
        server.shutdown()
        server.server_close()


def merged(histograms: Iterable[HdrHistogram]) -> HdrHistogram:
    """By the library."""
    total = empty_histogram()
    for histogram in histograms:
        total.add(histogram)
    return total


def percentiles_ms(record: RunRecord, which: str = "latency") -> dict[float, float]:
    """Of all kinds and seconds together."""
    total = merged(decoded(getattr(part, which)) for part in record.load)
    return {q: total.get_value_at_percentile(q) / 1000 for q in PERCENTILES}


def counted(record: RunRecord, what: str) -> int:
    return sum(getattr(part, what) for part in record.load)


def errors(record: RunRecord) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in record.load:
        for name, number in part.errors.items():
            found[name] = found.get(name, 0) + number
    return found


def right(record: RunRecord) -> int:
    return sum(decoded(part.latency).total_count for part in record.load)
