"""Supervision of tiny processes: restarts, pauses, hangs, the standby, the order of the end."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import psutil
import pytest

from newshelf.config import LogSettings
from newshelf.server import supervisor as module
from newshelf.server.ports import Ports, free_port
from newshelf.server.process import Service, is_running, program, write_plan
from newshelf.server.state import ServerState, new_temp, read_state
from newshelf.server.supervisor import Supervisor, SupervisorPlan

LIVES = """
import os, pathlib, signal, sys, time
def end(*_):
    with open("ends", "a") as file:
        print(sys.argv[1], file=file)
    sys.exit()
signal.signal(signal.SIGTERM, end)
while True:
    pathlib.Path(os.environ["NEWSHELF_HEARTBEAT"]).touch()
    time.sleep(0.02)
"""
BEATS_ONCE = """
import os, pathlib, time
pathlib.Path(os.environ["NEWSHELF_HEARTBEAT"]).touch()
time.sleep(600)
"""
ANSWERS = """
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[ServerState]:
    """The state of a server without processes; stopped at the end."""
    state = ServerState(tmp_path, Ports(), new_temp(), {}, "shop")
    yield state
    state.end()


Add = Callable[..., ServerState]


def child(state: ServerState, name: str, code: str, **more: object) -> ServerState:
    """Add a service that is not started yet."""
    fields = {"cwd": state.directory, "heartbeat": state.temp / name, **more}
    command = (sys.executable, "-c", code, name)
    service = Service.model_validate({"name": name, "command": command, **fields})
    return replace(state, services={**state.services, name: service})


def watch(supervisor: Supervisor, until: Callable[[ServerState], bool]) -> ServerState:
    while not until(supervisor.state):
        supervisor.look()
        time.sleep(0.01)
    return supervisor.state


def ready(state: ServerState, name: str) -> bool:
    return name in state.processes and (state.temp / name).exists()


def test_a_killed_process_is_started_again_and_the_reason_is_recorded(empty: ServerState) -> None:
    supervisor = Supervisor(child(empty, "shelf", LIVES), LogSettings())
    first = watch(supervisor, lambda state: ready(state, "shelf")).processes["shelf"]
    os.kill(first.pid, signal.SIGKILL)
    state = watch(supervisor, lambda state: bool(state.restarts) and ready(state, "shelf"))
    assert is_running(state.processes["shelf"])
    assert state.processes["shelf"] != first
    assert [(one.name, one.reason) for one in state.restarts] == [("shelf", "ended with SIGKILL")]
    assert read_state(state.directory) == state


def test_pauses_grow_up_to_a_limit_and_end_after_a_long_life(
    empty: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.monotonic() + 1.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s))
    supervisor = Supervisor(child(empty, "shelf", "raise SystemExit(7)"), LogSettings())
    pauses: list[float] = []
    for _ in range(9):
        watch(supervisor, lambda state: "shelf" in state.processes)
        state = watch(supervisor, lambda state: "shelf" not in state.processes)
        assert state.restarts[-1].reason == "ended with exit code 7"
        failed_s = now_s
        supervisor.look()
        while "shelf" not in supervisor.state.processes:
            now_s += 0.5
            supervisor.look()
        pauses.append(now_s - failed_s)
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, 30]

    lives = child(supervisor.state, "shelf", LIVES).services["shelf"]
    supervisor.state = supervisor.state.start(lives)
    watch(supervisor, lambda state: ready(state, "shelf"))
    now_s += 100
    supervisor.look()
    os.kill(supervisor.state.processes["shelf"].pid, signal.SIGKILL)
    watch(supervisor, lambda state: "shelf" not in state.processes)
    supervisor.look()
    assert "shelf" in supervisor.state.processes


def test_a_silent_process_is_replaced_although_it_runs(empty: ServerState) -> None:
    supervisor = Supervisor(child(empty, "shelf", BEATS_ONCE, silence_s=0.2), LogSettings())
    first = watch(supervisor, lambda state: "shelf" in state.processes).processes["shelf"]
    state = watch(supervisor, lambda state: bool(state.restarts))
    assert state.restarts[0].reason.startswith("gave no sign of life")
    assert not is_running(first)


def test_a_process_that_never_shows_life_is_replaced(empty: ServerState) -> None:
    sleeps = child(empty, "shelf", "import time; time.sleep(600)", start_s=0.2)
    state = watch(Supervisor(sleeps, LogSettings()), lambda state: bool(state.restarts))
    assert state.restarts[0].reason.startswith("gave no sign of life")


def test_nothing_is_replaced_because_the_machine_was_paused(
    empty: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused_s = [0.0]
    monkeypatch.setattr(
        module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + paused_s[0])
    )
    supervisor = Supervisor(child(empty, "shelf", BEATS_ONCE, silence_s=60), LogSettings())
    kept = watch(supervisor, lambda state: supervisor._lives["shelf"].ready).processes

    class Paused(Event):
        """Ends at the third look; the machine is paused before each."""

        def wait(self, timeout: float | None = None) -> bool:
            paused_s[0] += 3600
            return paused_s[0] > 3 * 3600

    monkeypatch.setattr(ServerState, "drain", lambda state: None)
    supervisor.run(Paused())
    assert supervisor.state.processes == kept
    assert supervisor.state.restarts == ()


def test_a_stopped_server_that_answers_no_request_is_replaced(
    empty: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.1)
    port = free_port()
    command = (sys.executable, "-c", ANSWERS, str(port))
    url = f"http://127.0.0.1:{port}/ping"
    more = {"command": command, "url": url, "silence_s": 0.5, "log": empty.directory / "log"}
    supervisor = Supervisor(child(empty, "torchserve", "", **more), LogSettings())
    state = watch(supervisor, lambda state: "torchserve" in state.processes)
    # An answer of 404 is a sign of life.
    end_s = time.monotonic() + 2
    first = watch(supervisor, lambda state: time.monotonic() > end_s).process
    psutil.Process(first.pid).suspend()
    state = watch(supervisor, lambda state: bool(state.restarts))
    assert not is_running(first)
    assert state.restarts[0].reason.startswith("gave no sign of life")


def test_a_program_that_is_not_there_is_tried_again(empty: ServerState) -> None:
    missing = child(empty, "shelf", "", command=("/nowhere/program",))
    supervisor = Supervisor(missing, LogSettings())
    state = watch(supervisor, lambda state: len(state.restarts) == 2)
    assert "could not be started" in state.restarts[1].reason


@pytest.fixture
def supervised(empty: ServerState) -> ServerState:
    """Three tiny services, under the real program and its standby."""
    state = empty
    for name in ("torchserve", "shelf", "gateway-1"):
        state = child(state, name, LIVES)
        state = state.start(state.services[name])
    path, beats = state.directory / "supervisor.json", state.temp / "supervisor"
    write_plan(path, SupervisorPlan(directory=state.directory, logs=LogSettings()))
    log = state.directory / "supervisor.log"
    name = "newshelf.server.supervisor"
    state = state.start(program("supervisor", name, path, log=log, heartbeat=beats, silence_s=3.0))
    return until(state, lambda now: ready(now, "standby"))


def until(state: ServerState, wanted: Callable[[ServerState], bool]) -> ServerState:
    while not wanted(now := state.current()):
        time.sleep(0.02)
    return now


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_standby_replaces_a_supervisor_that_ends_or_hangs(
    supervised: ServerState, number: signal.Signals
) -> None:
    first, standby = (supervised.processes[name] for name in ("supervisor", "standby"))
    os.kill(first.pid, number)
    state = until(supervised, lambda now: now.processes.get("supervisor") == standby)
    state = until(state, lambda now: "standby" in now.processes)
    assert state.processes["standby"] != standby
    assert not is_running(first)
    # The services did not notice …
    kept = ("torchserve", "shelf", "gateway-1")
    assert all(is_running(state.processes[name]) for name in kept)
    assert [state.processes[name] for name in kept] == [supervised.processes[n] for n in kept]
    assert "supervisor" in {one.name for one in state.restarts}
    # … and are supervised.
    os.kill(state.processes["shelf"].pid, signal.SIGKILL)
    until(state, lambda now: now.processes.get("shelf", standby) not in state.processes.values())


def test_a_killed_standby_is_replaced(supervised: ServerState) -> None:
    killed = supervised.processes["standby"]
    os.kill(killed.pid, signal.SIGKILL)
    until(supervised, lambda now: now.processes.get("standby", killed) != killed)


def test_sigterm_drains_the_gateway_first_and_torchserve_last(supervised: ServerState) -> None:
    os.kill(supervised.processes["supervisor"].pid, signal.SIGTERM)
    while read_state(supervised.directory) is not None:
        time.sleep(0.02)
    assert not any(
        is_running(one) for name, one in supervised.processes.items() if name != "supervisor"
    )
    assert (supervised.directory / "ends").read_text().split() == [
        "gateway-1",
        "shelf",
        "torchserve",
    ]
    assert not supervised.temp.exists()
