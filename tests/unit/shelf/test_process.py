"""The shelf's process, killed at random moments."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from newshelf.config import ShelfSettings
from newshelf.server.process import Service, is_running, program, stop_session, write_plan
from newshelf.server.program import ShelfPlan
from newshelf.server.state import ServerState
from newshelf.shelf.model import ShelfModel
from newshelf.store.store import EventStore
from tests.fake_server import FakeServer
from tests.served_model import VERSION
from tests.unit.shelf.helpers import product, published

KILLS = 4
LOG = "shelf.log"
PATIENCE_S = 180.0


@pytest.fixture
def plan(
    tmp_path: Path,
    fake_server: FakeServer,
    server_state: ServerState,
    model_store: Path,
    store_url: str,
) -> ShelfPlan:
    """Of a process next to a TorchServe that serves the tiny model."""
    fake_server.workers = {VERSION: ["READY"]}
    return ShelfPlan(
        settings=ShelfSettings(poll_ms=10),
        store_url=store_url,
        torchserve=server_state.directory,
        model_store=model_store,
        folder=tmp_path / "shelf",
    )


@pytest.fixture
def service(plan: ShelfPlan, tmp_path: Path) -> Service:
    path, log = tmp_path / "shelf.json", tmp_path / LOG
    write_plan(path, plan)
    return program("shelf", "newshelf.shelf", path, log=log, heartbeat=tmp_path / "heartbeat")


def wait_until_published(store: EventStore, plan: ShelfPlan, model: ShelfModel, log: Path) -> None:
    """Wait until the shelf is what the store holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    expected = {one.id: one.columns.price for one in store.items.page(limit=1_000)}
    found: dict[str, object] = {}
    while time.monotonic() < deadline_s:
        # A segment that is merged meanwhile may be gone.
        with suppress(Exception):
            rows, _ = published(plan.folder / VERSION, model.shape)
            found = {item: row["price"] for item, row in rows.items()}
            if found == expected:
                return
        time.sleep(0.05)
    raise AssertionError(f"{found} instead of {expected}: {log.read_text()}")


def test_killed_at_any_moment_it_goes_on(
    store: EventStore, plan: ShelfPlan, service: Service, model: ShelfModel, tmp_path: Path
) -> None:
    process = service.start()
    chance = random.Random(5)
    log = tmp_path / LOG
    for turn in range(KILLS):
        store.items.put([product(f"{turn}-{number}") for number in range(40)])
        store.items.put([product(f"item-{chance.randrange(9)}", price=turn)])
        if turn:
            store.items.delete(f"{turn - 1}-{chance.randrange(40)}")
        if turn % 2:
            wait_until_published(store, plan, model, log)
        time.sleep(chance.random())
        os.kill(process.pid, signal.SIGKILL)
        process = service.start()
    wait_until_published(store, plan, model, log)
    stop_session(process)
    visible = [one.visible for one in store.items.states("3-39")]
    assert visible == [True]


def test_it_shows_that_it_works_and_ends_when_asked(
    store: EventStore, plan: ShelfPlan, service: Service, model: ShelfModel, tmp_path: Path
) -> None:
    store.items.put([product("ring")])
    process = service.start()
    wait_until_published(store, plan, model, tmp_path / LOG)
    before = service.heartbeat.stat().st_mtime_ns
    while service.heartbeat.stat().st_mtime_ns == before:
        assert is_running(process)
        time.sleep(0.05)
    stop_session(process)
    # Another host may encode at once.
    assert store.leases.acquire("shelf", "another", 10)
