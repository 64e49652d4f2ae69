"""TorchServe's key file, and the state file that knows gateway and controller."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from newshelf.errors import ServerError
from newshelf.server.process import is_running, start_session, stop_session
from newshelf.server.state import GatewayState, ServerState, read_keys, read_state, running_state

# As TorchServe 0.12.0 writes it, nanoseconds included.
WRITTEN = {
    "management": {"key": "E3lDyGxC", "expiration time": "2026-11-22T05:00:31.791960833Z"},
    "inference": {"key": "gkQjKhcF", "expiration time": "2026-11-22T05:00:31.791949096Z"},
    "API": {"key": "JduVMYqD"},
}


def write(path: Path, table: object, mode: int = 0o600) -> Path:
    path.write_text(json.dumps(table))
    path.chmod(mode)
    return path


def test_tokens_and_expiry_are_read(tmp_path: Path) -> None:
    keys = read_keys(write(tmp_path / "key_file.json", WRITTEN))
    assert keys.inference.header() == {"Authorization": "Bearer gkQjKhcF"}
    assert keys.management.token == "E3lDyGxC"
    assert keys.inference.expires == datetime(2026, 11, 22, 5, 0, 31, 791949, tzinfo=UTC)
    assert not keys.inference.expired(datetime(2026, 11, 22, 5, 0, 31, tzinfo=UTC))
    assert keys.inference.expired(datetime(2026, 11, 22, 5, 0, 32, tzinfo=UTC))
    assert not keys.api.expired(datetime(2099, 1, 1, tzinfo=UTC))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="other users"):
        read_keys(write(tmp_path / "key_file.json", WRITTEN, mode=0o644))


@pytest.mark.parametrize("table", [[], {}, {"inference": {}}, {**WRITTEN, "API": None}])
def test_another_file_is_refused(tmp_path: Path, table: object) -> None:
    with pytest.raises(ServerError, match="not a key file"):
        read_keys(write(tmp_path / "key_file.json", table))


def test_a_missing_key_file_asks_whether_the_server_runs(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="is the server running"):
        read_keys(tmp_path / "key_file.json")


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


def test_the_gateway_is_saved_and_stopped_with_the_server(
    start_fake: Start, tmp_path: Path
) -> None:
    state = with_gateway(start_fake(), tmp_path)
    assert state.gateway is not None
    assert read_state(state.directory) == state
    state.end()
    assert not is_running(state.gateway.process)
    assert not is_running(state.process)
    assert read_state(state.directory) is None


def test_a_gateway_of_a_dead_server_is_stopped(start_fake: Start, tmp_path: Path) -> None:
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


def test_the_controller_is_saved_and_stopped_with_the_server(
    start_fake: Start, tmp_path: Path
) -> None:
    process = start_session(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        cwd=tmp_path,
        env=os.environ,
        log=tmp_path / "controller.log",
    )
    state = replace(start_fake(), controller=process)
    state.save()
    assert read_state(state.directory) == state
    state.end()
    assert not is_running(process)
    assert not is_running(state.process)
    assert read_state(state.directory) is None
