"""``./run status`` of a server whose TorchServe is down."""

import sys
from pathlib import Path

from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.server.ports import Ports
from newshelf.server.process import Service, stop_session
from newshelf.server.state import GatewayState, ServerState, new_temp


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
