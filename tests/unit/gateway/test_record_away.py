"""While the event store takes no rows, answers wait in a spool, and are replayed."""

import asyncio
import json
import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.store.postgres import Postgres
from newshelf.errors import Unavailable
from newshelf.gateway.record import open_record
from newshelf.gateway.state import AppState
from newshelf.server.program import GatewayPlan
from newshelf.store.spool import Spool
from newshelf.store.store import EventStore
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe


@pytest.fixture
def gateway_plan(gateway_plan: GatewayPlan, tmp_path: Path) -> GatewayPlan:
    return gateway_plan.model_copy(
        update={"spool": tmp_path / "spool.db", "spool_max_bytes": 2**20}
    )


@contextmanager
def locked(gateway: Gateway) -> Iterator[None]:
    """As another process does that writes for long."""
    connection = sqlite3.connect(gateway.plan.store_url.removeprefix("sqlite:///"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


def until(holds: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def click(answer: httpx.Response, event_id: str) -> dict[str, Any]:
    body = answer.json()
    return {
        "event_id": event_id,
        "event_type": "click",
        "item_id": body["items"][0]["id"],
        "request_id": body["request_id"],
    }


def readiness(gateway: Gateway) -> httpx.Response:
    return httpx.get(f"{gateway.url}/readyz", trust_env=False, timeout=30)


def test_gauges_follow_where_another_process_answers_for_the_metrics(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    set_gauges = AppState.set_gauges

    def noted(self: AppState) -> None:
        set_gauges(self)
        (metric,) = self.recommender.metrics.record.collect()
        told.append(metric.samples[0].value)

    monkeypatch.setattr(AppState, "set_gauges", noted)
    gateway = start_gateway()
    until(lambda: 0 in told)
    with locked(gateway):
        assert gateway.recommend().status_code == 200
        until(lambda: 1 in told)


def test_a_locked_store_costs_one_wait_and_no_answer(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    before = gateway.recommend("before")
    with locked(gateway):
        answers = [gateway.recommend(f"u{n}") for n in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        began_s = time.monotonic()
        more = [gateway.recommend(f"v{n}") for n in range(20)]
        # Each of them waited for the store before.
        assert time.monotonic() - began_s < 20
        events = [click(before, "e-before"), click(answers[3], "e3"), click(more[3], "e4")]
        heard = gateway.http.post("/v1/feedback", json={"events": events})
        assert heard.json()["accepted"] == 3
        assert {one["outcome"] for one in heard.json()["results"]} == {"spooled"}
        ready = readiness(gateway)
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert "event store" in ready.json()["spooled"]
        assert "newshelf_gateway_record 1.0" in gateway.http.get("/metrics").text
        assert len(gateway.exposures()) == 1
    until(lambda: len(list(gateway.store.feedback())) == 3)
    asked = [answer.json()["request_id"] for answer in (before, *answers, *more)]
    assert sorted(one.request_id for one in gateway.exposures()) == sorted(asked)
    joined = {one.event_id: one.request_id for one in gateway.store.feedback()}
    assert joined == {one["event_id"]: one["request_id"] for one in events}
    until(lambda: readiness(gateway).json() == {"status": "ready", "missing": {}})
    again = gateway.http.post("/v1/feedback", json={"events": events})
    assert {one["outcome"] for one in again.json()["results"]} == {"duplicate"}


def test_what_neither_takes_is_refused_at_once_and_readiness_says_why(
    start_gateway: StartGateway, gateway_plan: GatewayPlan
) -> None:
    assert gateway_plan.spool is not None
    gateway_plan.spool.mkdir()
    gateway = start_gateway()
    with locked(gateway):
        assert gateway.recommend("first").status_code == 503
        began_s = time.monotonic()
        refused = [gateway.recommend(f"u{n}") for n in range(20)]
        assert {answer.status_code for answer in refused} == {503}
        assert time.monotonic() - began_s < 20
        assert "spool" in refused[0].json()["message"]
        ready = readiness(gateway)
        assert ready.status_code == 503
        assert "nothing can be recorded" in ready.json()["message"]
        # A disk with room again is noticed without any shopper.
        gateway_plan.spool.rmdir()
        until(lambda: readiness(gateway).status_code == 200)
        assert gateway.recommend("spooled").status_code == 200
    # The first one's writer may still have waited for the lock.
    until(lambda: {one.unit for one in gateway.exposures()} - {"first"} == {"spooled"})


def test_without_a_spool_the_breaker_is_all(
    start_gateway: StartGateway, gateway_plan: GatewayPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gateway_plan.__dict__, "spool_max_bytes", 0)
    gateway = start_gateway()
    with locked(gateway):
        assert gateway.recommend("first").status_code == 503
        began_s = time.monotonic()
        assert {gateway.recommend(f"u{n}").status_code for n in range(20)} == {503}
        assert time.monotonic() - began_s < 20
        assert readiness(gateway).status_code == 503
    until(lambda: readiness(gateway).status_code == 200)
    assert gateway.recommend("u").status_code == 200


def test_a_full_disk_fills_the_spool_and_then_refuses(
    start_gateway: StartGateway, gateway_plan: GatewayPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gateway_plan.__dict__, "spool_max_bytes", 2**16)
    gateway = start_gateway()
    with locked(gateway):
        statuses = []
        until(lambda: statuses.append(gateway.recommend("u").status_code) or 503 in statuses)
        assert statuses[:-1] == [200] * (len(statuses) - 1)
        assert len(statuses) > 10
        assert readiness(gateway).status_code == 503
        full = gateway.http.post("/v1/feedback", json={"events": [event(n) for n in range(500)]})
        assert (full.status_code, full.json()["code"]) == (503, "unavailable")
    until(lambda: len(gateway.exposures()) == len(statuses) - 1)
    until(lambda: readiness(gateway).status_code == 200)


def event(number: int) -> dict[str, Any]:
    return {"event_id": f"{number}", "event_type": "view", "item_id": "item-001", "unit": "u"}


def test_feedback_waits_for_answers_that_another_process_spooled(
    start_gateway: StartGateway, gateway_plan: GatewayPlan
) -> None:
    gateway = start_gateway()
    assert gateway_plan.spool is not None
    other = Spool(gateway_plan.spool, gateway_plan.spool_max_bytes)
    answer = gateway.recommend("u")
    (stored,) = gateway.exposures()
    spooled = stored.model_copy(update={"request_id": "of-another-process"})

    async def main() -> None:
        with EventStore.connect(gateway_plan.store_url) as store:
            async with open_record(store, other) as record:
                record.away = "told so by the test"
                await record.exposure(spooled)

    asyncio.run(main())
    named = click(answer, "e") | {"request_id": "of-another-process"}
    heard = gateway.http.post("/v1/feedback", json=named)
    assert heard.status_code == 200
    until(lambda: [one.request_id for one in gateway.store.feedback()] == ["of-another-process"])


def test_postgresql_is_stopped_and_started_again(
    start_gateway: StartGateway,
    gateway_plan: GatewayPlan,
    monkeypatch: pytest.MonkeyPatch,
    torchserve: FakeTorchServe,
) -> None:
    with Postgres(["fsync=off"]) as server:
        monkeypatch.setitem(gateway_plan.__dict__, "store_url", server.create_database("away"))
        gateway = start_gateway()
        asked = [gateway.recommend("before")]
        server.stop()
        asked += [gateway.recommend(f"u{n}") for n in range(10)]
        assert {answer.status_code for answer in asked} == {200}
        heard = gateway.http.post("/v1/feedback", json=click(asked[5], "e"))
        assert heard.json()["results"][0]["outcome"] == "spooled"
        assert readiness(gateway).json()["spooled"]
        server.start()
        # They were answered without their histories.
        page = gateway.http.get("/metrics").text
        assert 'newshelf_gateway_histories_total{source="unavailable"}' in page
        until(lambda: _count(gateway) == (11, 1))
        assert {one.request_id for one in gateway.exposures()} == {
            answer.json()["request_id"] for answer in asked
        }
        until(lambda: readiness(gateway).json() == {"status": "ready", "missing": {}})
        assert gateway.recommend("u4", k=1).status_code == 200
        clicked = asked[5].json()["items"][0]["id"]
        assert json.loads(torchserve.asked[-1].body)["history"] == [clicked]


def _count(gateway: Gateway) -> tuple[int, int]:
    try:
        return len(gateway.exposures()), len(list(gateway.store.feedback()))
    except Unavailable:
        # This connection was to the server that was stopped.
        return -1, -1


def test_a_disk_without_room_is_one_that_takes_no_rows(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    log = Path(gateway.plan.store_url.removeprefix("sqlite:///") + "-wal")
    before = 0
    while log.stat().st_size < 2**20:
        assert gateway.recommend("u").status_code == 200
        before += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The spool is smaller: as if it were on another disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        statuses = [gateway.recommend("u").status_code for _ in range(10)]
        assert statuses == [200] * 10
        assert len(gateway.exposures()) == before
        assert readiness(gateway).json()["spooled"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    until(lambda: len(gateway.exposures()) == before + 10)
