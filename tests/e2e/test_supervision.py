"""A real TorchServe and the gateway before it are killed, and both answer again."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.config import Settings
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import Workspace
from newshelf.server.process import is_running
from newshelf.store.store import EventStore


def until(found: Callable[[], bool]) -> None:
    while not found():
        time.sleep(0.1)


def test_whatever_is_killed_comes_back_and_every_request_is_answered(
    server: Served, workspace: Workspace
) -> None:
    state = server.state
    assert state.gateway is not None
    key = (workspace.gateway / "local.key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    url = state.gateway.url
    answered: dict[str, str] = {}

    def recommend() -> str:
        """Ask on a connection of its own; return who answered."""
        body = {"unit": "survivor", "k": 3}
        response = httpx.post(
            f"{url}/v1/recommend", json=body, headers=headers, timeout=60, trust_env=False
        )
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        answered[answer["request_id"]] = answer["source"]
        return str(answer["source"])

    def ready() -> bool:
        return httpx.get(f"{url}/readyz?strict", timeout=60, trust_env=False).is_success

    def kill(name: str) -> None:
        killed = state.current().processes[name]
        os.kill(killed.pid, signal.SIGKILL)
        until(lambda: not is_running(killed))
        recommend()
        until(lambda: state.current().processes.get(name, killed) != killed)

    before = len(state.current().restarts)
    kill("torchserve")
    until(ready)
    assert recommend() == "model"
    kill("gateway-1")
    until(ready)
    kill("supervisor")
    until(lambda: "standby" in state.current().processes)
    restarts = state.current().restarts[before:]
    assert [one.name for one in restarts] == ["torchserve", "gateway-1", "supervisor"]
    places = ["--catalog", str(workspace.catalog), "--workspace", str(workspace.root)]
    status = CliRunner().invoke(app, ["status", *places], env={"COLUMNS": "200"})
    assert status.exit_code == 0, status.output
    assert "restarts: 1" in status.output
    with EventStore.open(workspace.store_url(Settings())) as store:
        assert answered.keys() <= {one.request_id for one in store.exposures()}
