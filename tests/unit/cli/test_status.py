"""``./run status`` of a server whose TorchServe is down."""

import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.cli.console import show_servers
from newshelf.server.ports import Ports
from newshelf.server.process import Service, start_session, stop_session
from newshelf.server.state import SEARCH, GatewayState, ServerState, new_temp


def test_restarts_and_what_is_down_are_shown(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "server").mkdir(parents=True)
    (tmp_path / "shop").mkdir()
    state = ServerState(
        workspace / "server", Ports(), new_temp(), {"encoder": "encoder-1.mar"}, "shop",
        gateway=GatewayState("http://127.0.0.1:8000"),
    )  # fmt: skip
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    for name in ("torchserve", "gateway-1"):
        beat = state.temp / name
        state = state.start(Service(name=name, command=command, cwd=tmp_path, heartbeat=beat))
    ended = state.processes["torchserve"]
    try:
        for _ in range(2):
            state = state.without("torchserve", "ended with SIGKILL")
        places = ["--catalog", str(tmp_path / "shop"), "--workspace", str(workspace)]
        shown = CliRunner().invoke(app, ["status", *places], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, shown.output
        lines = {line.split()[0]: line for line in shown.output.splitlines() if line.strip()}
        assert "is down, restarts: 2" in lines["torchserve"]
        assert "it ended with SIGKILL" in lines["torchserve"]
        assert f"process {state.processes['gateway-1'].pid}" in lines["gateway-1"]
        assert "the gateway answers without" in lines["no"]
    finally:
        state.end()
        stop_session(ended)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("✓ archive: done in 0.9 s\nabc is served instead of abc-fp32\n", "abc is served instead"),
        ("… precision: not made yet\nerror: no space left\n", "error: no space left"),
        ("… precision: not made yet\n", "was interrupted; the next ./run serve searches again"),
        ("", "was interrupted"),
    ],
)
def test_how_a_search_for_a_precision_ended_is_shown(tmp_path: Path, said: str, shown: str) -> None:
    log = tmp_path / "search.log"
    log.write_text(said)
    ended = start_session(["true"], cwd=tmp_path, env={}, log=None)
    stop_session(ended)
    state = ServerState(
        tmp_path, Ports(), tmp_path, {}, "shop", processes={SEARCH: ended}
    )  # fmt: skip
    console = Console(record=True, width=200)
    show_servers(console, [state])
    (line,) = (one for one in console.export_text().splitlines() if "search" in one.split()[:1])
    assert shown in line


def test_the_last_line_of_a_running_search_is_shown(tmp_path: Path) -> None:
    (tmp_path / "search.log").write_text("… precision: not made yet\n")
    running = start_session(["sleep", "600"], cwd=tmp_path, env={}, log=None)
    state = ServerState(tmp_path, Ports(), tmp_path, {}, "shop", processes={SEARCH: running})
    console = Console(record=True, width=200)
    try:
        show_servers(console, [state])
    finally:
        stop_session(running)
    assert "search      … precision: not made yet" in console.export_text()
