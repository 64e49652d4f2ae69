"""The shelf's process, killed at random moments."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from newshelf.config import ShelfSettings
from newshelf.pipeline.workspace import ROOT
from newshelf.server.process import ProcessRef, is_running, stop_session
from newshelf.server.shelf import LOG, ShelfPlan, start_shelf
from newshelf.server.state import ServerState
from newshelf.shelf.model import ShelfModel
from newshelf.store.store import EventStore
from tests.unit.rollout.controller.test_versions import FakeServer, fake, state  # noqa: F401
from tests.unit.serving.conftest import VERSION
from tests.unit.shelf.helpers import product, published

KILLS = 4
PATIENCE_S = 180.0


@pytest.fixture
def plan(
    tmp_path: Path,
    fake: FakeServer,  # noqa: F811
    state: ServerState,  # noqa: F811
    model_store: Path,
    store: EventStore,
) -> ShelfPlan:
    """Of a process next to a TorchServe that serves the tiny model."""
    fake.workers = {VERSION: ["READY"]}
    return ShelfPlan(
        settings=ShelfSettings(poll_ms=10),
        store_url=f"sqlite:///{tmp_path}/events.db",
        torchserve=state.directory,
        model_store=model_store,
        folder=tmp_path / "shelf",
    )


@pytest.fixture
def process(plan: ShelfPlan, tmp_path: Path) -> Iterator[ProcessRef]:
    """The supervisor; stopped at the end."""
    ref = start_shelf(plan, root=ROOT, directory=tmp_path, plan_file=tmp_path / "shelf.json")
    yield ref
    stop_session(ref)


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
    store: EventStore, plan: ShelfPlan, process: ProcessRef, model: ShelfModel, tmp_path: Path
) -> None:
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
        for child in psutil.Process(process.pid).children():
            os.kill(child.pid, signal.SIGKILL)
    wait_until_published(store, plan, model, log)
    assert is_running(process)
    visible = [one.visible for one in store.items.states("3-39")]
    assert visible == [True]


def test_it_ends_with_its_children(
    store: EventStore, plan: ShelfPlan, process: ProcessRef, model: ShelfModel, tmp_path: Path
) -> None:
    store.items.put([product("ring")])
    wait_until_published(store, plan, model, tmp_path / LOG)
    children = psutil.Process(process.pid).children()
    stop_session(process)
    assert children
    assert not any(child.is_running() for child in children)
    # Another host may encode at once.
    assert store.leases.acquire("shelf", "another", 10)
