"""A rollout over three hosts, of which one is killed in each phase: no shopper is switched."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.store.postgres import Postgres
from newshelf.cli.pipeline import settings_from
from newshelf.pipeline import serve
from newshelf.pipeline.workspace import Workspace
from newshelf.rollout.plan import RolloutState
from newshelf.rollout.versions import TorchServeVersions
from newshelf.server.process import members
from newshelf.server.program import ControllerPlan, GatewayPlan
from newshelf.server.state import TORCHSERVE
from tests.e2e.rollouts import Shop, check_record, open_shop, plan_of
from tests.e2e.shoppers import Shoppers

pytestmark = pytest.mark.xdist_group("rollouts")

NAME = "three"


def until(found: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 240
    while not found():
        assert time.monotonic() < end_s
        time.sleep(0.1)


@pytest.fixture
def hosts(
    packed: Workspace, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Shop]]:
    """Three of them, as on three machines with one database and one model store."""
    plan_controller, plan_gateway = serve.plan_controller, serve.plan_gateway
    with ExitStack() as stack:
        url = stack.enter_context(Postgres(["fsync=off"])).create_database("shop")
        opened = []
        for name in ("first", "second", "third"):

            def named(*given: Any, name: str = name) -> ControllerPlan:
                return plan_controller(*given).model_copy(update={"host": name})

            def waiting(*given: Any, name: str = name, **more: Any) -> GatewayPlan:
                return plan_gateway(*given, **more).model_copy(update={"controller": name})

            monkeypatch.setattr(serve, "plan_controller", named)
            monkeypatch.setattr(serve, "plan_gateway", waiting)
            folder, settings = tmp_path / name, settings_from(settings_file)
            folder.mkdir()
            shop = open_shop(packed, settings, folder, store_url=url, small=True)
            opened.append(stack.enter_context(shop))
        # Each gateway has waited for its controller.
        assert set(opened[0].store.hosts.reports()) == {"first", "second", "third"}
        yield opened


def versions(host: Shop) -> TorchServeVersions:
    return TorchServeVersions(host.state.directory, host.workspace.model_store, {"k": 5})


def kill_server(host: Shop) -> None:
    os.kill(host.state.current().processes[TORCHSERVE].pid, signal.SIGKILL)


def kill_all(host: Shop) -> None:
    """Kill whatever runs there, those that start others first."""
    running = host.state.current().processes
    for name in sorted(running, key=lambda name: name not in {"supervisor", "standby"}):
        for process in members(running[name]):
            process.kill()


def switched(host: Shop, shoppers: Shoppers, version: str) -> None:
    """Wait until a gateway answers by a version, and its shopper has had two more answers."""
    assert host.state.gateway is not None
    key = {"Authorization": f"Bearer {host.key}"}
    with httpx.Client(base_url=host.state.gateway.url, headers=key, timeout=30) as http:

        def answers() -> bool:
            unit = f"probe-{time.time_ns()}"
            answer = http.post("/v1/recommend", json={"unit": unit}).json()
            [exposure] = host.store.units.show(unit).exposures
            return answer["source"] == "model" and exposure.model_version == version

        until(answers)
    before = len(shoppers.answered)
    until(lambda: len(shoppers.answered) >= before + 2)


def test_one_host_dies_in_each_phase_and_all_are_switched_together(hosts: list[Shop]) -> None:
    first, second, third = hosts
    own, store = first.own, first.store
    ramp = [{"percent": 50, "min_seconds": 8, "max_seconds": 240, "min_units": 60}]
    plan = plan_of(
        "old",
        own,
        ramp=ramp,
        promotion={"min_seconds": 4, "max_seconds": 240},
        guardrails=[{"metric": "error_rate", "most": 0.9}],
    )
    # The same people, whichever gateway a balancer sends them to.
    with first.shoppers(NAME, threads=1) as here, third.shoppers(NAME, threads=1) as there:
        first.start(NAME, plan)
        kill_server(third)
        first.wait_for(NAME, "ramp")
        assert [versions(host).obstacle(own) for host in hosts] == [None] * 3
        kill_all(second)
        state = first.wait_for(NAME, "promoting", "paused", "rolled_back")
        assert state.phase == "promoting", state.reason
        kill_server(first)
        first.wait_for(NAME, "promoted")
        assert set(store.hosts.reports()) == {"first", "third"}
        switched(first, here, own)
        switched(third, there, own)
        promoted = datetime.now(UTC)
        first.run("rollback", NAME)
        kill_server(third)
        first.wait_for(NAME, "rolled_back")
        assert [versions(host).default() for host in (first, third)] == ["old"] * 2
        switched(first, here, "old")
        switched(third, there, "old")
        rolled_back = datetime.now(UTC)
        switched(first, here, "old")
    for shoppers in (here, there):
        check_record(store, shoppers, NAME)
    at = {
        RolloutState.model_validate_json(one.state).phase: one.at
        for one in store.rollouts.journal(NAME)
    }
    seen = [one for one in store.exposures() if not one.fallback]
    outside = [one for one in seen if one.variant == "default"]

    def shown(begin: datetime, end: datetime) -> set[str]:
        return {one.model_version for one in outside if begin < one.at < end}

    assert shown(at["draft"], at["promoted"]) == {"old"}
    assert own in shown(at["promoted"], at["rolled_back"])
    assert shown(promoted, at["rolled_back"]) <= {own}
    assert shown(rolled_back, datetime.now(UTC)) == {"old"}
    inside = {(one.variant, one.model_version) for one in seen if one.variant != "default"}
    assert inside == {("control", "old"), ("challenger", own)}
