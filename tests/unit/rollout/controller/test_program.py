"""The controller as a process: watched, replaced when it is killed, ended when asked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from newshelf.config import RolloutSettings
from newshelf.pipeline.workspace import ROOT
from newshelf.server.controller import ControllerPlan, start_controller
from newshelf.server.process import ProcessRef, is_running, members, stop_session

PATIENCE_S = 120.0


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
    )


@pytest.fixture
def running(plan: ControllerPlan, tmp_path: Path) -> Iterator[ProcessRef]:
    process = start_controller(
        plan, root=ROOT, directory=tmp_path, plan_file=tmp_path / "controller.json"
    )
    yield process
    stop_session(process)


def worker(process: ProcessRef, tmp_path: Path, looks: int) -> psutil.Process:
    """The child, once ``looks`` controllers have begun."""
    log = tmp_path / "controller.log"

    def found() -> psutil.Process | None:
        children = psutil.Process(process.pid).children()
        begun = log.read_text().count("looks every") == looks
        return children[0] if children and begun else None

    return wait_for(found)


def wait_for(found: Callable[[], psutil.Process | None]) -> psutil.Process:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        if (process := found()) is not None:
            return process
        time.sleep(0.05)
    raise AssertionError("it did not come")


def test_a_killed_controller_is_replaced_and_both_end_when_asked(
    running: ProcessRef, tmp_path: Path
) -> None:
    first = worker(running, tmp_path, looks=1)
    first.kill()
    second = worker(running, tmp_path, looks=2)
    assert second.pid != first.pid
    os.kill(running.pid, signal.SIGTERM)
    wait_for(lambda: None if is_running(running) else second)
    assert members(running) == []
    log = (tmp_path / "controller.log").read_text()
    assert "newshelf.rollout ended with -9" in log
    assert "Traceback" not in log


def test_its_plan_is_private(running: ProcessRef, tmp_path: Path) -> None:
    assert (tmp_path / "controller.json").stat().st_mode & 0o077 == 0


def test_a_plan_that_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "damaged.json").write_text('{"store_url": 1}')
    for name, message in (
        ("missing.json", "is missing"),
        ("damaged.json", "damaged.json is no plan of a controller: settings"),
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
