"""The gateway as it is really run: a supervisor, its processes, and a kill of one of them."""

import json
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
from newshelf.server.gateway import GatewayPlan, start_gateway, wait_for_gateway
from newshelf.server.ports import free_port
from newshelf.server.process import is_running, members, stop_session, write_plan
from newshelf.server.state import GatewayState
from newshelf.store.store import EventStore
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status

ROOT = Path(__file__).parents[3]


@pytest.fixture
def two(plan: GatewayPlan) -> GatewayPlan:
    settings = GatewaySettings(port=free_port(), processes=2)
    return plan.model_copy(update={"settings": settings})


@pytest.fixture
def running(two: GatewayPlan, tmp_path: Path) -> Iterator[tuple[GatewayState, httpx.Client]]:
    keys = KeyFile(two.api_keys)
    secret = keys.add("tests", now=datetime.now(UTC), expires=None, rate_per_s=100_000)
    state = start_gateway(two, root=ROOT, directory=tmp_path)
    try:
        wait_for_gateway(state)
        with httpx.Client(
            base_url=state.url,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=30,
            trust_env=False,
        ) as http:
            yield state, http
    finally:
        stop_session(state.process)


def workers(state: GatewayState) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(state.process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


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


def _is_alive(state: GatewayState) -> bool:
    try:
        return httpx.get(f"{state.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_killed_process_is_replaced_and_nothing_acknowledged_is_lost(
    running: tuple[GatewayState, httpx.Client], two: GatewayPlan
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
    with EventStore.open(two.store_url) as store:
        kept = [exposure.request_id for exposure in store.exposures()]
    assert len(set(kept)) == len(kept)
    assert set(acknowledged) <= set(kept)


def test_the_metrics_are_those_of_all_processes(
    running: tuple[GatewayState, httpx.Client],
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
    running: tuple[GatewayState, httpx.Client],
) -> None:
    state, http = running
    assert recommend(http, "u").status_code == 200
    stop_session(state.process)
    assert not is_running(state.process)
    assert members(state.process) == []
    # What it told, it told in JSON; a clean end has no traceback.
    lines = Path(state.log).read_text().splitlines()
    assert '"Application shutdown complete."' in "\n".join(lines)
    assert not [line for line in lines if "Traceback" in line]


def events_of(state: GatewayState) -> list[str]:
    """What the gateway's log says, line by line."""
    lines = Path(state.log).read_text().splitlines()
    return [json.loads(line)["event"] for line in lines if line.startswith("{")]


def test_a_process_that_stands_still_for_a_while_is_not_killed(
    two: GatewayPlan, tmp_path: Path
) -> None:
    state = start_gateway(two, root=ROOT, directory=tmp_path)
    try:
        while len(found := workers(state)) < 2:
            assert is_running(state.process)
            time.sleep(0.01)
        # As on a machine that is busy with something else: while one imports …
        found[0].suspend()
        time.sleep(8)
        found[0].resume()
        wait_for_gateway(state)
        while sum("serves after" in line for line in events_of(state)) < 2:
            time.sleep(0.05)
        # … and while one serves.
        found[1].suspend()
        time.sleep(8)
        found[1].resume()
        assert _is_alive(state)
        assert {one.pid for one in workers(state)} == {one.pid for one in found}
    finally:
        stop_session(state.process)
    said = events_of(state)
    for process in found:
        assert f"process {process.pid} starts" in said
    assert not [line for line in said if "killed" in line or "ended" in line]


def test_the_supervisor_says_what_it_kills_and_what_died(two: GatewayPlan, tmp_path: Path) -> None:
    settings = two.settings.model_copy(update={"worker_silence_s": 0.5, "worker_start_s": 600})
    plan = two.model_copy(update={"settings": settings})
    state = start_gateway(plan, root=ROOT, directory=tmp_path)

    def wait_for(event: str) -> None:
        while not [line for line in events_of(state) if event in line]:
            assert is_running(state.process)
            time.sleep(0.05)

    try:
        while sum("serves after" in line for line in events_of(state)) < 2:
            assert is_running(state.process)
            time.sleep(0.05)
        found = workers(state)
        found[0].suspend()
        wait_for(f"process {found[0].pid} is killed: no heartbeat")
        found[1].kill()
        wait_for(f"process {found[1].pid} ended with SIGKILL")
        # Both are replaced.
        while sum("serves after" in line for line in events_of(state)) < 4:
            assert is_running(state.process)
            time.sleep(0.05)
    finally:
        stop_session(state.process)


def test_a_process_that_never_serves_is_killed_with_the_reason(
    two: GatewayPlan, tmp_path: Path
) -> None:
    settings = two.settings.model_copy(update={"worker_start_s": 0.01})
    plan = two.model_copy(update={"settings": settings})
    state = start_gateway(plan, root=ROOT, directory=tmp_path)
    try:
        while not [line for line in events_of(state) if "did not serve within" in line]:
            assert is_running(state.process)
            time.sleep(0.05)
    finally:
        stop_session(state.process)


def test_logs_are_rotated_and_those_of_an_earlier_start_are_kept(
    two: GatewayPlan, tmp_path: Path
) -> None:
    log = tmp_path / "gateway.log"
    log.write_text("of an earlier start\n")
    plan = two.model_copy(update={"logs": LogSettings(max_bytes=100_000, kept=3)})
    state = start_gateway(plan, root=ROOT, directory=tmp_path)
    try:
        assert (tmp_path / "gateway.log.1").read_text() == "of an earlier start\n"
        wait_for_gateway(state)
        with httpx.Client(base_url=state.url, trust_env=False, timeout=30) as http:
            while not (tmp_path / "gateway.log.2").exists():
                assert http.get("/v1/rollouts").status_code == 401
        assert (tmp_path / "gateway.log.2").read_text() == "of an earlier start\n"
        # The processes go on, and write into the emptied file.
        until_s = time.monotonic() + 60
        while not log.stat().st_size and time.monotonic() < until_s:
            httpx.get(f"{state.url}/v1/rollouts", trust_env=False)
        assert 0 < log.stat().st_size < 200_000
    finally:
        stop_session(state.process)
    lines = [*(tmp_path / "gateway.log.1").read_text().splitlines(), *log.read_text().splitlines()]
    assert all(json.loads(line) for line in lines)


def test_a_taken_port_is_refused_before_anything_starts(two: GatewayPlan, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", two.settings.port))
        taken.listen()
        with pytest.raises(ServerError, match=f"{two.settings.port} .gateway.*--port"):
            start_gateway(two, root=ROOT, directory=tmp_path)


def test_models_that_do_not_answer_are_told_with_the_reason(
    two: GatewayPlan, torchserve: FakeTorchServe, tmp_path: Path
) -> None:
    torchserve.always = status(503)
    state = start_gateway(two, root=ROOT, directory=tmp_path)
    try:
        while not _is_alive(state):
            assert is_running(state.process)
            time.sleep(0.1)
        with pytest.raises(ServerError, match=r"not ready.*encoder"):
            wait_for_gateway(state, timeout_s=0)
    finally:
        stop_session(state.process)


def test_a_gateway_that_cannot_start_says_why(two: GatewayPlan, tmp_path: Path) -> None:
    broken = two.model_copy(update={"popular": tmp_path / "missing.json"})
    state = start_gateway(broken, root=ROOT, directory=tmp_path)
    try:
        with pytest.raises(ServerError, match=r"(?s)ended while it started.*popular products"):
            wait_for_gateway(state)
    finally:
        stop_session(state.process)


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
