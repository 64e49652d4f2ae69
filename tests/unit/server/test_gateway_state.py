"""A server's state knows its gateway, so that whoever ends the one ends the other."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from newshelf.server.gateway import GatewayState
from newshelf.server.process import is_running, start_session, stop_session
from newshelf.server.state import ServerState, read_state, running_state

Start = Callable[..., ServerState]


def with_gateway(state: ServerState, folder: Path) -> ServerState:
    """A process stands in for the gateway."""
    process = start_session(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        cwd=folder,
        env=os.environ,
        log=folder / "gateway.log",
    )
    gateway = GatewayState(process, "http://127.0.0.1:8000", str(folder / "gateway.log"))
    changed = replace(state, gateway=gateway)
    changed.save()
    return changed


def test_the_gateway_is_written_down_and_ended_with_the_server(
    start_fake: Start, tmp_path: Path
) -> None:
    state = with_gateway(start_fake(), tmp_path)
    assert state.gateway is not None
    assert read_state(state.directory) == state
    state.end()
    assert not is_running(state.gateway.process)
    assert not is_running(state.process)
    assert read_state(state.directory) is None


def test_a_gateway_whose_server_is_gone_is_cleared_away(start_fake: Start, tmp_path: Path) -> None:
    state = with_gateway(start_fake(), tmp_path)
    assert state.gateway is not None
    stop_session(state.process)
    assert running_state(state.directory) is None
    assert not is_running(state.gateway.process)


def test_a_state_from_before_there_were_gateways_is_read(start_fake: Start) -> None:
    state = start_fake()
    path = state.directory / "state.json"
    path.write_text(path.read_text().replace('"gateway": null,', ""))
    assert read_state(state.directory) == state
