"""The load client against servers whose behaviour is known."""

import time
from collections.abc import Callable

import pytest

from benchmarks.own_cost import measure_closed
from benchmarks.servers import noop_server
from loadtest.closed_loop import run
from loadtest.requests import Rendered
from loadtest.tuning.load import ClosedLoopPlan
from tests.unit.loadtest.server import Server, address


def posts(*bodies: bytes) -> list[Rendered]:
    return [Rendered("m", "/predictions/m", "text/x", body) for body in bodies]


def test_every_request_is_sent_once_in_turns_with_its_headers(
    start: Callable[..., Server],
) -> None:
    server = start()
    plan = ClosedLoopPlan(
        address(server), posts(b"a", b"bb"), 1, {"Authorization": "Bearer t"}, count=5
    )
    result = run(plan)
    assert len(result.latencies_ms) == 5
    assert result.failures == {}
    assert [asked[2] for asked in server.asked] == [b"a", b"bb", b"a", b"bb", b"a"]
    assert {asked[:2] + asked[3:] for asked in server.asked} == {
        ("/predictions/m", "text/x", "Bearer t")
    }


def test_each_client_waits_for_its_answer(start: Callable[..., Server]) -> None:
    server = start(delay_s=0.02)
    result = run(ClosedLoopPlan(address(server), posts(b"x"), 4, count=24))
    assert len(result.latencies_ms) == 24
    assert server.most_at_once == 4
    assert min(result.latencies_ms) >= 20
    # Six turns, one after the other.
    assert result.measured_s >= 6 * 0.02


def test_only_answers_with_200_have_a_latency_and_the_others_are_counted(
    start: Callable[..., Server],
) -> None:
    server = start(statuses=(200, 503, 200, 422))
    result = run(ClosedLoopPlan(address(server), posts(b"x"), 1, count=8))
    assert len(result.latencies_ms) == 4
    assert result.failures == {"503": 2, "422": 2}


def test_a_lost_connection_is_a_failure_and_the_next_is_opened(
    start: Callable[..., Server],
) -> None:
    server = start(statuses=(200, 0, 200))
    result = run(ClosedLoopPlan(address(server), posts(b"x"), 1, count=3))
    assert len(result.latencies_ms) == 2
    assert sum(result.failures.values()) == 1


def test_nobody_listening_is_a_failure_per_try() -> None:
    with noop_server() as url:
        pass
    result = run(ClosedLoopPlan(url, posts(b"x"), 2, count=4))
    assert len(result.latencies_ms) == 0
    assert result.failures == {"ConnectionRefusedError": 4}


def test_a_client_gives_up_on_an_answer_that_does_not_come(start: Callable[..., Server]) -> None:
    server = start(delay_s=0.5)
    result = run(ClosedLoopPlan(address(server), posts(b"x"), 1, count=1, timeout_s=0.05))
    assert sum(result.failures.values()) == 1
    assert "imeout" in next(iter(result.failures))


def test_the_warm_up_is_not_measured(start: Callable[..., Server]) -> None:
    server = start(delay_s=0.01)
    result = run(ClosedLoopPlan(address(server), posts(b"x"), 1, seconds=0.3, warm_up_s=0.3))
    assert result.measured_s == pytest.approx(0.3)
    assert 0 < len(result.latencies_ms) < len(server.asked)
    assert len(result.latencies_ms) <= 30


def test_an_exchange_keeps_its_moments_and_the_header_that_was_asked_for(
    start: Callable[..., Server],
) -> None:
    server = start(delay_s=0.01)
    before = time.time_ns()
    result = run(ClosedLoopPlan(address(server), posts(b"four"), 2, count=6, kept_header="x-told"))
    after = time.time_ns()
    assert len(result.exchanges) == 6
    assert {one.client for one in result.exchanges} == {0, 1}
    for one, latency_ms in zip(result.exchanges, result.latencies_ms, strict=True):
        assert before - 1_000_000 <= one.sent_ns < one.end_ns <= after + 1_000_000
        assert (one.end_ns - one.sent_ns) / 1e6 == latency_ms
        assert one.header == "4"


def test_its_own_cost_is_measured_against_a_server_that_does_nothing() -> None:
    result = measure_closed(1000, 4, seconds=0.3)
    assert result.failures == {}
    assert len(result.latencies_ms) > 50
    assert 0 < result.client_cpu_s <= result.measured_s * 1.1
