"""The search by wrk, its requests, and the rate that queueing gives."""

import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.loadtest import greatest_rate, known_rate, traffic_of
from benchmarks.serve.wrk import Load, Request, load
from loadtest.options import LoadOptions, LoadTarget, make_plan
from loadtest.slo import LatencyLimit
from newshelf.errors import SettingsError
from tests.unit.loadtest.made_records import made_record, made_second


def told(rate, p99_ms):
    return Load(200, 100, rate, p99_ms / 2, p99_ms, p99_ms, p99_ms)


@pytest.mark.parametrize("limit", [30.0, 90.0, 150.0])
def test_a_known_limit_is_found(limit):
    found = greatest_rate(lambda rate: told(rate, 20 if rate <= limit else 80), 100.0, 50.0)
    assert limit / 1.04 <= found.rate <= limit
    assert found.p99_ms == 20


def test_one_bad_load_of_three_changes_nothing_and_two_do():
    calls = []

    def measure(rate):
        calls.append(rate)
        return None if calls.count(rate) == 1 else told(rate, 20)

    assert greatest_rate(measure, 100.0, 50.0).rate == pytest.approx(200, rel=0.05)
    assert greatest_rate(lambda _rate: None, 100.0, 50.0) is None


def test_the_traffic_is_that_of_the_record():
    options = LoadOptions(
        via="torchserve",
        mix="recommend history=2,encode both=1",
        traffic=["cold_share=0", "picture_px=[64, 128]", "popularity=events"],
    )
    plan = make_plan(options, LoadTarget("http://a:1", None, Path("/shop")), "steady")
    record = made_record([made_second(0, [1.0])], settings=plan.settings())
    assert traffic_of(record) == plan.traffic
    through_gateway = record.model_copy(update={"settings": {"traffic.via": "gateway"}})
    with pytest.raises(SettingsError, match="torchserve"):
        traffic_of(through_gateway)


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.moments.append(time.perf_counter())
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        """Say nothing."""


def test_connections_that_pause_send_the_rate_that_is_asked_for(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.moments = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "body").write_bytes(b"{}")
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        found = load(
            url, [Request("/", tmp_path / "body")], clients=40, seconds=5, pause_ms=40 * 1000 / 50
        )
    finally:
        server.shutdown()
        server.server_close()
    # 250 arrivals, whose count has a spread of 16.
    assert found.per_second == pytest.approx(50, rel=0.3)
    gaps = sorted(b - a for a, b in zip(server.moments, server.moments[1:], strict=False))
    # Of exponential gaps the median is 0.69 times the mean; of even ones they are the same.
    assert gaps[len(gaps) // 2] < 0.85 * sum(gaps) / len(gaps)


def waiting_at_most(t_ms: float, rate: float, service_ms: float) -> float:
    """P(W ≤ t) of M/D/1 (Erlang 1909), with rate in requests/s."""
    per_ms = rate / 1e3
    terms = (
        (per_ms * (k * service_ms - t_ms)) ** k
        / math.factorial(k)
        * math.exp(-per_ms * (k * service_ms - t_ms))
        for k in range(int(t_ms // service_ms) + 1)
    )
    return (1 - per_ms * service_ms) * sum(terms)


@pytest.mark.parametrize(("service_ms", "most_ms"), [(20.0, 100.0), (10.0, 50.0), (10.0, 25.0)])
def test_at_the_greatest_rate_one_in_a_hundred_is_later_than_the_limit(service_ms, most_ms):
    rate = known_rate(service_ms, LatencyLimit(99, most_ms))
    assert waiting_at_most(most_ms - service_ms, rate, service_ms) == pytest.approx(0.99, abs=5e-4)
