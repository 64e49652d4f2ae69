"""TorchServe's key file, and the state file that knows all processes."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from newshelf.errors import ServerError
from newshelf.server.process import Service, is_running, stop_session
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


def with_sleeper(state: ServerState, name: str) -> ServerState:
    """Add a process that stands in for another of the server's."""
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    beat = state.temp / name
    return state.start(Service(name=name, command=command, cwd=state.directory, heartbeat=beat))


def test_all_processes_are_saved_and_stopped_with_the_server(start_fake: Start) -> None:
    state = replace(start_fake(), gateway=GatewayState("http://127.0.0.1:8000"))
    for name in ("gateway-1", "controller", "shelf"):
        state = with_sleeper(state, name)
    assert read_state(state.directory) == state
    assert state.processes.keys() == {"torchserve", "gateway-1", "controller", "shelf"}
    state.end()
    assert not [name for name, one in state.processes.items() if is_running(one)]
    assert read_state(state.directory) is None


def test_what_was_started_later_is_stopped_too(start_fake: Start) -> None:
    early = start_fake()
    late = with_sleeper(early, "shelf")
    early.end()
    assert not is_running(late.processes["shelf"])


def test_the_server_runs_as_long_as_one_of_its_processes(start_fake: Start) -> None:
    state = with_sleeper(start_fake(), "gateway-1")
    stop_session(state.process)
    assert running_state(state.directory) == state
    stop_session(state.processes["gateway-1"])
    assert running_state(state.directory) is None
    assert not (state.directory / "state.json").exists()


def test_the_last_restarts_are_kept_with_time_and_reason(start_fake: Start) -> None:
    state = with_sleeper(start_fake(), "shelf")
    for number in range(101):
        state = state.without("shelf", f"ended {number}")
    assert "shelf" not in state.processes
    read = read_state(state.directory)
    assert read is not None
    assert [one.reason for one in read.restarts] == [f"ended {n}" for n in range(1, 101)]
    assert datetime.fromisoformat(read.restarts[-1].time) <= datetime.now(UTC)
    assert read.counts == {"shelf": 101}


def test_an_absent_torchserve_does_not_run(start_fake: Start) -> None:
    state = start_fake()
    stop_session(state.process)
    assert not is_running(state.without("torchserve", "ended").process)
