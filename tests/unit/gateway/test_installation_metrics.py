"""Metrics of drift, restarts, spool, shelf and rollouts, as the gateway's page has them."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from newshelf.gateway import state as state_module
from newshelf.gateway.observability import InstallationMetrics
from newshelf.rollout.plan import Phase, RolloutState
from newshelf.server.ports import Ports
from newshelf.server.process import Service
from newshelf.server.state import ServerState
from newshelf.store import schema
from newshelf.store.items import ItemColumns, ItemRepository, ItemWrite
from newshelf.store.records import Feedback
from newshelf.store.spool import Spool
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.gateways import StartGateway

REPORT = {
    "triggers": ["price"],
    "measures": [
        {"name": "price", "size": 0.5},
        {"name": "brand", "size": 0.01},
        {"name": "fallback", "size": None},
    ],
}
HOUR_US = 3_600_000_000
Samples = dict[tuple[str, ...], float]


def samples(page: str) -> Samples:
    """Values by name and labels."""
    return {
        (sample.name.removeprefix("newshelf_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def read(**sources: Any) -> Samples:
    return samples(generate_latest(InstallationMetrics(**sources)).decode())


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[EventStore]:
    shutil.copyfile(empty_store, tmp_path / "events.db")
    with EventStore.open(f"sqlite:///{tmp_path / 'events.db'}") as opened:
        yield opened


def age(store: EventStore, table: Any, column: str, us: int) -> None:
    """Make all rows of a table older."""
    with store.database.writing() as connection:
        connection.execute(update(table).values({column: table.c[column] - us}))


def test_the_last_report_on_drift_is_told_with_its_age(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert read(drift=path) == {}
    until = datetime.now(UTC) - timedelta(hours=1)
    path.write_text(json.dumps({"until": until.isoformat(), **REPORT}))
    found = read(drift=path)
    assert found["drift", "price"] == 0.5
    assert found["drift_triggered", "price"] == 1
    assert found["drift_triggered", "brand"] == 0
    assert found["drift", "fallback"] != found["drift", "fallback"]
    assert found["drift_age_seconds",] == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"until": "then", "measures": []}', "{}"])
def test_a_damaged_report_is_no_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    assert read(drift=path) == {}


def test_every_restart_is_counted_also_beyond_those_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "key_file.json"
    assert read(keys=keys) == {}
    services = {
        name: Service(name=name, command=(), cwd=tmp_path) for name in ("shelf", "gateway-1")
    }
    state = ServerState(tmp_path, Ports(), tmp_path, {}, "shop", services=services)
    for _ in range(120):
        state = state.without("shelf", "ended")
    found = {("process_restarts_total", "shelf"): 120, ("process_restarts_total", "gateway-1"): 0}
    assert read(keys=keys) == found
    # A gateway that supervises itself has the state where the metrics are.
    alone = tmp_path / "alone"
    alone.mkdir()
    ServerState(alone, Ports(), alone, {}, "", services=services).without("gateway-1", "ended")
    (tmp_path / "state.json").unlink()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(alone))
    found = {("process_restarts_total", "shelf"): 0, ("process_restarts_total", "gateway-1"): 1}
    assert read(keys=keys) == found
    (alone / "state.json").write_text("{")
    assert read(keys=keys) == {}


def test_the_spool_tells_its_rows_its_size_and_how_long_they_wait(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", 2**20)
    empty = {("spool_rows",): 0, ("spool_bytes",): 0, ("spool_oldest_seconds",): 0}
    assert read(spool=spool) == {**empty, ("spool_max_bytes",): 2**20}
    events = [
        Feedback(
            event_id=f"{n}", event_type="click", item_id="ring", at=datetime.now(UTC), unit="u"
        )
        for n in range(300)
    ]
    spool.write(WriteBatch(feedback=events[:1]))
    small = read(spool=spool)
    spool.write(WriteBatch(feedback=events[1:]))
    found = read(spool=spool)
    assert found["spool_rows",] == 300
    assert 0 < small["spool_bytes",] < found["spool_bytes",] <= 2**20
    assert 0 < found["spool_oldest_seconds",] < 60
    while spool.replay(lambda batch: ["stored"] * len(batch.feedback)):
        pass
    emptied = read(spool=spool)
    assert (emptied["spool_rows",], emptied["spool_oldest_seconds",]) == (0, 0)
    assert emptied["spool_bytes",] < found["spool_bytes",]
    (tmp_path / "spool.db").write_bytes(b"no database" * 1000)
    assert read(spool=Spool(tmp_path / "spool.db", 2**20)) == {}


def put(store: EventStore, *ids: str) -> None:
    store.items.put([ItemWrite(ItemColumns(id=one, title="Jade ring")) for one in ids])


def test_a_shelf_is_behind_by_its_oldest_unpublished_change(store: EventStore) -> None:
    host = socket.gethostname()
    put(store, "old")
    age(store, schema.items, "updated_us", 2 * HOUR_US)
    put(store, "new")
    assert read(store=store) == {}
    store.items.published(host, "7", 2)
    store.items.published(host, "8", 0)
    store.items.published("another", "7", 0)
    found = read(store=store)
    assert found.keys() == {("shelf_lag_seconds", "7"), ("shelf_lag_seconds", "8")}
    assert found["shelf_lag_seconds", "7"] == 0
    assert found["shelf_lag_seconds", "8"] == pytest.approx(7200, abs=60)
    store.items.published(host, "8", 1)
    assert 0 <= read(store=store)["shelf_lag_seconds", "8"] < 60


def test_a_dead_shelf_falls_behind_and_a_version_that_is_served_no_more_does_not(
    store: EventStore,
) -> None:
    host = socket.gethostname()
    store.items.published(host, "6", 0)
    age(store, schema.shelves, "at_us", HOUR_US)
    store.items.published(host, "7", 0)
    put(store, "ring")
    age(store, schema.items, "updated_us", HOUR_US)
    age(store, schema.shelves, "at_us", 10 * HOUR_US)
    assert read(store=store) == {("shelf_lag_seconds", "7"): pytest.approx(3600, abs=60)}


def create(store: EventStore, name: str, phase: Phase) -> None:
    state = RolloutState(
        rollout=name, salt="salt", phase=phase, since=datetime.now(UTC), reason="test"
    )
    store.rollouts.create(name, "{}", state.model_dump_json(), None)


def test_rollouts_in_progress_tell_their_phase_and_when_they_were_looked_at(
    store: EventStore,
) -> None:
    for name, phase in (("over", "promoted"), ("spring", "ramp"), ("summer", "draft")):
        create(store, name, phase)  # type: ignore[arg-type]
    store.rollouts.create("old", "{}", '{"phase": "promoted"}', None)
    age(store, schema.rollouts, "updated_us", 2 * HOUR_US)
    for name in ("over", "spring"):
        store.rollouts.add_snapshot(name, "{}")
    age(store, schema.looks, "at_us", HOUR_US)
    hours = {"spring": 3600, "summer": 7200}
    assert read(store=store) == {
        ("rollout_phase", "ramp", "spring"): 1,
        ("rollout_phase", "draft", "summer"): 1,
        **{
            ("rollout_look_age_seconds", name): pytest.approx(seconds, abs=60)
            for name, seconds in hours.items()
        },
    }


def test_the_gateways_page_has_them_and_does_not_wait_for_a_store_that_hangs(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, goes_on = start_gateway(), threading.Event()
    put(gateway.store, "ring")
    gateway.store.items.published(socket.gethostname(), "7", 0)
    found = samples(gateway.http.get("/metrics").text)
    assert found["shelf_lag_seconds", "7"] >= 0
    assert ("gateway_unrecorded_total",) in found

    def hang(*_: object) -> dict[str, float]:
        goes_on.wait()
        return {}

    monkeypatch.setattr(ItemRepository, "lags", hang)
    monkeypatch.setattr(state_module, "_OTHERS_S", 0.1)
    found = samples(gateway.http.get("/metrics").text)
    goes_on.set()
    assert ("shelf_lag_seconds", "7") not in found
    assert ("gateway_unrecorded_total",) in found
