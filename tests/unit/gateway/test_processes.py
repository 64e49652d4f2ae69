"""The gateway's processes as they are really run, and a kill of one of them."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from newshelf.config import GatewaySettings, LogSettings
from newshelf.errors import ServerError
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.main import main
from newshelf.server.ports import Ports, free_port, listen
from newshelf.server.process import is_running, members, program, write_plan
from newshelf.server.program import GatewayPlan, gateway_services, wait_for_gateway
from newshelf.server.state import GatewayState, ServerState, new_temp
from newshelf.server.supervisor import SupervisorPlan
from newshelf.store.store import EventStore
from tests.unit.gateway.fake_torchserve import ALIVE, FakeTorchServe, status

ROOT = Path(__file__).parents[3]


@pytest.fixture
def two(gateway_plan: GatewayPlan) -> GatewayPlan:
    settings = GatewaySettings(port=free_port(), processes=2)
    # Next to the server's state; there is no such file, as of a TorchServe that was never started.
    keys = gateway_plan.api_keys.with_name("key_file.json")
    return gateway_plan.model_copy(update={"settings": settings, "torchserve_keys": keys})


def start(plan: GatewayPlan, folder: Path, kept: int = 5) -> ServerState:
    """As ``./run serve`` starts the gateway, with the supervisor."""
    path, log = folder / "gateway.json", folder / "gateway.log"
    write_plan(path, plan)
    state = ServerState(folder, Ports(), new_temp(), {}, "shop", gateway=GatewayState(plan.url))
    with listen(plan.settings.host, plan.settings.port, "gateway") as listener:
        for service in gateway_services(plan, path, listener, log=log, folder=state.temp):
            state = state.start(service)
        name, path = "newshelf.server.supervisor", folder / "supervisor.json"
        logs = LogSettings(max_bytes=100_000, kept=kept)
        write_plan(path, SupervisorPlan(directory=folder, logs=logs))
        beat = state.temp / "supervisor"
        log = folder / "supervisor.log"
        sockets = (listener.fileno(),)
        supervisor = program("supervisor", name, path, log=log, heartbeat=beat, sockets=sockets)
        return state.start(supervisor)


@pytest.fixture
def running(two: GatewayPlan, tmp_path: Path) -> Iterator[tuple[ServerState, httpx.Client]]:
    keys = KeyFile(two.api_keys)
    secret = keys.add("tests", now=datetime.now(UTC), expires=None, rate_per_s=100_000)
    state = start(two, tmp_path)
    try:
        wait_for_gateway(state, tmp_path / "gateway.log")
        with httpx.Client(
            base_url=two.url,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=30,
            trust_env=False,
        ) as http:
            yield state, http
    finally:
        state.end()


def workers(state: ServerState) -> list[psutil.Process]:
    processes = state.current().processes
    return [
        psutil.Process(one.pid)
        for name, one in sorted(processes.items())
        if name.startswith("gateway") and is_running(one)
    ]


def wait_until_seen(state: ServerState, name: str) -> None:
    """Wait until the supervisor knows that a process has started, which may take it longer."""
    heartbeat = state.services[name].heartbeat
    while not heartbeat.exists():
        time.sleep(0.05)
    beat = state.services["supervisor"].heartbeat
    # Between two beats it looks at all processes.
    for _ in range(2):
        last = beat.stat().st_mtime_ns if beat.exists() else 0
        while not beat.exists() or beat.stat().st_mtime_ns == last:
            time.sleep(0.05)


def restarts(state: ServerState) -> list[str]:
    """Of the gateway's processes, with the reasons."""
    return [f"{one.name} {one.reason}" for one in state.current().restarts]


def recommend(http: httpx.Client, unit: str) -> Any:
    return http.post("/v1/recommend", json={"unit": unit, "k": 2})


def fresh(http: httpx.Client, unit: str) -> Any:
    """On a connection of its own, which any of the processes may take."""
    return httpx.post(
        f"{http.base_url}/v1/recommend",
        json={"unit": unit, "k": 2},
        headers={"Authorization": http.headers["authorization"]},
        timeout=30,
        trust_env=False,
    )


def fresh_page(http: httpx.Client) -> str:
    headers = {"Authorization": http.headers["authorization"]}
    return httpx.get(f"{http.base_url}/metrics", headers=headers, timeout=30, trust_env=False).text


def test_a_killed_process_is_replaced_and_nothing_acknowledged_is_lost(
    running: tuple[ServerState, httpx.Client], two: GatewayPlan
) -> None:
    state, http = running
    acknowledged: list[str] = []
    failed = 0
    for number in range(60):
        if number == 20:
            victim = workers(state)[0]
            os.kill(victim.pid, signal.SIGKILL)
        try:
            response = fresh(http, f"u{number}")
        except httpx.TransportError:
            failed += 1
            continue
        assert response.status_code == 200
        acknowledged.append(response.json()["request_id"])
    # The other one goes on: at most what the victim had taken is lost.
    assert failed <= 2
    while len(workers(state)) < 2:
        time.sleep(0.05)
    page = fresh_page(http)
    assert 'newshelf_process_restarts_total{process="gateway-1"} 1.0' in page
    assert 'newshelf_process_restarts_total{process="gateway-2"} 0.0' in page
    with EventStore.open(two.store_url) as store:
        kept = [exposure.request_id for exposure in store.exposures()]
    assert len(set(kept)) == len(kept)
    assert set(acknowledged) <= set(kept)


def test_the_metrics_are_those_of_all_processes(
    running: tuple[ServerState, httpx.Client],
) -> None:
    _, http = running
    for number in range(40):
        assert fresh(http, f"u{number}").status_code == 200
    page = http.get("/metrics").text
    counted = re.search(
        r'newshelf_gateway_requests_total\{route="/v1/recommend",status="200"\} (\S+)', page
    )
    assert counted is not None
    assert float(counted[1]) == 40


def test_it_ends_with_all_its_processes(
    running: tuple[ServerState, httpx.Client], tmp_path: Path
) -> None:
    state, http = running
    assert recommend(http, "u").status_code == 200
    processes = [members(one) for one in state.current().processes.values()]
    state.end()
    assert not any(one.is_running() for each in processes for one in each)
    # What it told, it told in JSON; a clean end has no traceback.
    lines = (tmp_path / "gateway.log").read_text().splitlines()
    assert '"Application shutdown complete."' in "\n".join(lines)
    assert not [line for line in lines if "Traceback" in line]


def test_a_process_that_is_asked_to_end_loses_no_request(
    running: tuple[ServerState, httpx.Client],
) -> None:
    state, http = running
    victim = workers(state)[0]
    for number in range(60):
        if number == 20:
            victim.terminate()
        assert fresh(http, f"u{number}").status_code == 200
    while not restarts(state):
        time.sleep(0.05)
    assert restarts(state) == ["gateway-1 ended"] or "SIGTERM" in restarts(state)[0]


def test_a_silent_process_is_killed_and_the_reason_is_recorded(
    two: GatewayPlan, tmp_path: Path
) -> None:
    settings = two.settings.model_copy(update={"worker_silence_s": 2.0})
    state = start(two.model_copy(update={"settings": settings}), tmp_path)
    try:
        wait_for_gateway(state, tmp_path / "gateway.log")
        victim = workers(state)[0]
        wait_until_seen(state, "gateway-1")
        victim.suspend()
        while not restarts(state):
            time.sleep(0.05)
        assert restarts(state)[0].startswith("gateway-1 gave no sign of life")
        # Its parent is this process, which has not waited for it.
        assert victim.status() == psutil.STATUS_ZOMBIE
    finally:
        state.end()


def test_large_logs_are_rotated(running: tuple[ServerState, httpx.Client], tmp_path: Path) -> None:
    state, http = running
    log = tmp_path / "gateway.log"
    while not log.with_name("gateway.log.1").exists():
        assert httpx.get(f"{http.base_url}/v1/rollouts", trust_env=False).status_code == 401
    # The processes go on, and write into the emptied file.
    while not log.stat().st_size:
        httpx.get(f"{http.base_url}/v1/rollouts", trust_env=False)
    assert log.stat().st_size < 200_000
    assert restarts(state) == []


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"{port} .gateway.*--port"):
            listen("127.0.0.1", port, "gateway")


def test_a_gateway_without_models_says_so_until_they_answer(
    running: tuple[ServerState, httpx.Client], torchserve: FakeTorchServe, tmp_path: Path
) -> None:
    state, http = running

    def up() -> bool:
        return 'newshelf_gateway_model_up{model="encoder"} 1.0' in http.get("/metrics").text

    assert up()
    torchserve.always = status(503)
    while up():
        time.sleep(0.1)
    assert http.get("/readyz").json()["missing"].keys() == {"encoder", "recommender"}
    with pytest.raises(ServerError, match="the gateway did not answer within 0 s"):
        wait_for_gateway(state, tmp_path / "gateway.log", timeout_s=0)
    torchserve.always = ALIVE
    while not up():
        time.sleep(0.1)


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """Undo what a program does to the log of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("log_as_before")
def test_a_gateway_that_cannot_start_says_why(
    two: GatewayPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, two.model_copy(update={"popular": tmp_path / "missing.json"}))
    assert main([str(path)]) == 2
    assert "popular products" in capsys.readouterr().err


@pytest.mark.usefixtures("log_as_before")
def test_a_plan_that_is_none_is_exit_code_2(
    two: GatewayPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    assert main([]) == 2
    assert main([str(path)]) == 2
    assert "No such file" in capsys.readouterr().err
    path.write_text('{"settings": {"prot": 1}}')
    assert main([str(path)]) == 2
    assert "settings.prot" in capsys.readouterr().err
    write_plan(path, two.model_copy(update={"store_url": "mysql://x/y"}))
    assert path.stat().st_mode & 0o777 == 0o600
    assert main([str(path)]) == 2
    assert "no event store in mysql" in capsys.readouterr().err


def test_the_program_says_how_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "newshelf.gateway.main"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "usage: python -m newshelf.gateway.main PLAN\n",
    )
