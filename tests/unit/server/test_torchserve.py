import json
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from newshelf.errors import ServerError
from newshelf.server.client import Client
from newshelf.server.process import is_running, stop_session
from newshelf.server.state import ServerState, find_running, read_state, running_state
from newshelf.server.torchserve import (
    TorchServePlan,
    find_java,
    keep_loading,
    read_properties,
    start_torchserve,
    wait_until_ready,
)

Start = Callable[..., ServerState]

REQUESTS: dict[str, dict[str, object]] = {
    "encoder": {"title": "a ring"},
    "recommender": {"history": ["a"], "k": 1},
}


def gone(process: psutil.Process) -> bool:
    """Ended; an orphan may still wait for init to reap it."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def startup_line(state: ServerState) -> dict[str, dict[str, str]]:
    line = [line for line in state.log.read_text().splitlines() if line.startswith("{")][-1]
    parsed: dict[str, dict[str, str]] = json.loads(line)
    return parsed


def test_ready_when_both_models_answer_and_ended_without_a_trace(start_fake: Start) -> None:
    state = start_fake(slow_s=0.3)
    ready: list[str] = []
    wait_until_ready(state, REQUESTS, on_ready=lambda model, _seconds: ready.append(model))
    assert ready == ["encoder", "recommender"]
    worker = psutil.Process(int(str(startup_line(state)["worker"])))
    state.end()
    assert not psutil.pid_exists(state.process.pid)
    assert gone(worker)
    assert not state.key_file.exists()
    assert not state.temp.exists()
    assert read_state(state.directory) is None


def test_logs_of_an_earlier_start_are_kept(start_fake: Start, tmp_path: Path) -> None:
    logs = [tmp_path / "server" / name for name in ("torchserve.log", "logs/model_log.log")]
    for log in logs:
        log.parent.mkdir(parents=True, exist_ok=True)
        # Deaths of another start say nothing of this one.
        log.write_text("Backend worker process died\n" * 5)
    state = start_fake()
    wait_until_ready(state, REQUESTS)
    assert [log.with_name(f"{log.name}.1").read_text().count("died") for log in logs] == [5, 5]
    assert "died" not in state.log.read_text()


def test_workers_inherit_no_python_path_and_no_overrides(
    start_fake: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/repository")
    monkeypatch.setenv("TS_CONFIG_FILE", "/elsewhere")
    monkeypatch.setenv("KEPT", "yes")
    state = start_fake()
    wait_until_ready(state, REQUESTS)
    environ = startup_line(state)["environ"]
    assert "PYTHONPATH" not in environ
    assert "TS_CONFIG_FILE" not in environ
    assert environ["KEPT"] == "yes"
    assert environ["LOG_LOCATION"] == str(state.directory / "logs")
    assert environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


def test_the_working_directory_with_the_key_file_is_private(start_fake: Start) -> None:
    state = start_fake()
    wait_until_ready(state, REQUESTS)
    assert stat.S_IMODE(state.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.temp.stat().st_mode) == 0o700


def test_a_crash_while_starting_shows_the_end_of_the_log(start_fake: Start) -> None:
    state = start_fake(crash=True)
    with pytest.raises(ServerError, match=r"ended while it started(.|\n)*made up"):
        wait_until_ready(state, REQUESTS)


def test_a_worker_that_keeps_dying_fails_the_start(start_fake: Start) -> None:
    state = start_fake(worker_dies=True, answers={"encoder": 503})
    with pytest.raises(ServerError, match=r"cannot load its model(.|\n)*ImportError"):
        wait_until_ready(state, REQUESTS)


def test_a_start_that_takes_too_long_fails(start_fake: Start) -> None:
    state = start_fake(answers={"recommender": 503})
    with pytest.raises(ServerError, match=r"recommender did not answer within 1 s"):
        wait_until_ready(state, REQUESTS, timeout_s=1)


def test_a_refused_request_is_reported(start_fake: Start) -> None:
    state = start_fake(answers={"recommender": 422})
    with pytest.raises(ServerError, match="recommender refused"):
        wait_until_ready(state, REQUESTS)


def test_an_expired_token_is_renewed(start_fake: Start) -> None:
    state = start_fake(lifetime_s=-1)
    wait_until_ready(state, REQUESTS)
    assert "inference-2" in state.key_file.read_text()


def test_the_clients_calls(start_fake: Start) -> None:
    state = start_fake(answers={"broken": 422})
    wait_until_ready(state, REQUESTS)
    with Client(state) as client:
        assert json.loads(client.recommend(history=["a"], k=3, user_id="u")["body"]) == {
            "history": ["a"],
            "k": 3,
            "user_id": "u",
        }
        assert json.loads(client.encode({"title": "ring"})["body"]) == {"title": "ring"}
        sent = client.encode({"title": "ring"}, b"\xff\xd8picture")
        assert sent["type"].startswith("multipart/form-data")
        assert 'name="image"' in sent["body"]
        assert client.predict("encoder", json={}, token="wrong").status_code == 400
        assert client.describe("encoder") == [{"path": "/models/encoder"}]


def test_a_servers_refusal_carries_code_message_and_field(start_fake: Start) -> None:
    state = start_fake(answers={"recommender": 422})
    wait_until_ready(state, {"encoder": REQUESTS["encoder"]})
    with Client(state) as client, pytest.raises(ServerError, match=r"422 bad: no .*history\[0\]"):
        client.recommend(history=["?"], k=1)


def test_a_refused_registration_tells_the_reason(start_fake: Start) -> None:
    state = start_fake()
    wait_until_ready(state, REQUESTS)
    with Client(state) as client:
        assert client.authorization() == {"Authorization": "Bearer inference-1"}
        with pytest.raises(ServerError, match=r"refused POST /models: .*failed"):
            client.register("encoder", "encoder-abc.mar", 1, timeout_s=5)


def test_a_second_server_in_the_same_directory_is_refused(
    start_fake: Start, plan: TorchServePlan
) -> None:
    start_fake()
    with pytest.raises(ServerError, match="already running"):
        start_torchserve(plan)


def test_a_taken_port_is_refused_before_anything_starts(
    start_fake: Start, plan: TorchServePlan
) -> None:
    assert plan.ports is not None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", plan.ports.metrics))
        taken.listen()
        with pytest.raises(ServerError, match=rf"{plan.ports.metrics} \(metrics\)"):
            start_fake()
    assert read_state(plan.directory) is None


def test_the_state_is_found_again_and_remains_of_a_dead_server_are_cleared(
    start_fake: Start, plan: TorchServePlan
) -> None:
    state = start_fake()
    wait_until_ready(state, REQUESTS)
    assert running_state(plan.directory) == state
    assert state in find_running(plan.directory.parent.parent)
    worker = psutil.Process(int(str(startup_line(state)["worker"])))
    psutil.Process(state.process.pid).kill()
    while is_running(state.process):
        time.sleep(0.01)
    assert running_state(plan.directory) is None
    assert gone(worker)
    assert not state.key_file.exists()


def test_a_damaged_state_says_which_file_to_remove(plan: TorchServePlan) -> None:
    plan.directory.mkdir()
    (plan.directory / "state.json").write_text("{}")
    with pytest.raises(ServerError, match=r"state\.json is damaged"):
        read_state(plan.directory)


def test_torchserve_starts_again_as_it_was_started(start_fake: Start) -> None:
    state = start_fake()
    wait_until_ready(state, REQUESTS)
    (state.temp / "torchserve" / "unpacked").mkdir()
    stop_session(state.process)
    keep_loading(state.directory / "config.properties", "recommender", "recommender-2.mar")
    again = state.start(state.services["torchserve"])
    wait_until_ready(again, REQUESTS)
    assert again.ports == state.ports
    assert list((state.temp / "torchserve").iterdir()) == []
    loads = read_properties(state.directory / "config.properties")["load_models"]
    assert loads == "encoder=encoder-abc.mar,recommender=recommender-2.mar"
    assert "PYTHONPATH" not in startup_line(again)["environ"]


def test_java_comes_from_its_package_unless_java_home_says_otherwise(fake_java: Path) -> None:
    assert find_java({"JAVA_HOME": str(fake_java.parents[1])}) == fake_java
    assert find_java({}).is_file()
    with pytest.raises(ServerError, match="JAVA_HOME is /nowhere"):
        find_java({"JAVA_HOME": "/nowhere"})
