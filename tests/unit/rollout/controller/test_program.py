"""The controller as a process: it shows that it works, and ends when asked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from newshelf.config import RolloutSettings
from newshelf.pipeline.workspace import ROOT
from newshelf.server.process import (
    ProcessRef,
    Service,
    is_running,
    members,
    program,
    stop_session,
    write_plan,
)
from newshelf.server.program import ControllerPlan
from newshelf.store.store import EventStore


@pytest.fixture
def plan(tmp_path: Path) -> ControllerPlan:
    return ControllerPlan(
        settings=RolloutSettings(tick_s=0.2),
        store_url=f"sqlite:///{tmp_path}/events.db",
        torchserve=tmp_path / "server",
        model_store=tmp_path,
        promoted=tmp_path / "promoted.json",
        question={"k": 5},
        longest_request_s=10,
        host="here",
    )


@pytest.fixture
def service(plan: ControllerPlan, tmp_path: Path) -> Service:
    path, log = tmp_path / "controller.json", tmp_path / "controller.log"
    write_plan(path, plan)
    beat = tmp_path / "heartbeat"
    return program("controller", "newshelf.rollout", path, log=log, heartbeat=beat)


@pytest.fixture
def running(service: Service) -> Iterator[ProcessRef]:
    process = service.start()
    yield process
    stop_session(process)


def test_it_sends_heartbeats_as_it_looks_and_ends_when_asked(
    running: ProcessRef, service: Service, tmp_path: Path
) -> None:
    stamps: set[int] = set()
    while len(stamps) < 3:
        assert is_running(running)
        if service.heartbeat.exists():
            stamps.add(service.heartbeat.stat().st_mtime_ns)
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGTERM)
    while is_running(running):
        time.sleep(0.05)
    assert members(running) == []
    log = (tmp_path / "controller.log").read_text()
    assert "looks every 0.2 s" in log
    assert "Traceback" not in log


def test_its_host_is_known_while_it_runs(running: ProcessRef, plan: ControllerPlan) -> None:
    with EventStore.open(plan.store_url) as store:
        while "here" not in store.hosts.reports():
            assert is_running(running)
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGTERM)
        while is_running(running):
            time.sleep(0.05)
        assert store.hosts.reports() == {}


def test_its_plan_is_private(running: ProcessRef, tmp_path: Path) -> None:
    assert (tmp_path / "controller.json").stat().st_mode & 0o077 == 0


def test_a_plan_that_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "damaged.json").write_text('{"store_url": 1}')
    for name, message in (
        ("missing.json", "cannot be read"),
        ("damaged.json", "damaged.json is no plan of this program: settings"),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "newshelf.rollout", tmp_path / name],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
