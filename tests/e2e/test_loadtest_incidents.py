"""What happens to a server during a run: when, what was lost, how long recovery took."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from loadtest.incidents import Incident, incidents
from loadtest.record import RunRecord, read_record
from loadtest.server_metrics import TorchServeProbe
from loadtest.timeline import Timeline
from newshelf.catalog.catalog import read_catalog
from newshelf.files import write_json
from newshelf.pipeline.serve import pick_demo
from newshelf.pipeline.stages import archive_paths
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.ports import free_ports
from newshelf.server.state import ServerState
from newshelf.server.torchserve import TorchServePlan, archives, start_torchserve, wait_until_ready

RATE = 20
CALM_S = 6.0
STOPPED_S = 7.0
"""The queue of 64 requests is full after some 3 s."""
LONGEST_S = 600
"""The run is ended when all has happened."""


@dataclass
class OwnServer:
    """A server of this test, without tokens: a new one would come with every start."""

    plan: TorchServePlan
    questions: dict[str, dict[str, object]]
    state: ServerState = field(init=False)

    def start(self) -> None:
        self.state = start_torchserve(self.plan)
        key = {"key": "unused"}
        write_json(self.state.key_file, {"inference": key, "management": key, "API": key})
        self.state.key_file.chmod(0o600)
        wait_until_ready(self.state, self.questions)

    def worker(self, model: str) -> int | None:
        """The process of a model's worker, when it is ready."""
        probe = TorchServeProbe(self.state)
        try:
            look = probe.look()
        finally:
            probe.close()
        workers = [] if look is None else look.workers
        ready = [one.pid for one in workers if (one.model, one.status) == (model, "READY")]
        return ready[0] if ready else None

    def worker_other_than(self, model: str, pid: int) -> int:
        """Wait for the next one."""
        while (found := self.worker(model)) in {None, pid}:
            time.sleep(0.2)
        assert found is not None
        return found


@pytest.fixture
def own(workspace: Workspace, tmp_path: Path) -> Iterator[OwnServer]:
    plan = TorchServePlan(
        root=ROOT,
        directory=tmp_path / "server",
        model_store=workspace.model_store,
        models=archives(archive_paths(workspace.archive)),
        catalog=str(workspace.catalog),
        ports=free_ports(),
        properties={"disable_token_authorization": "true"},
    )
    server = OwnServer(plan, pick_demo(read_catalog(workspace.catalog)).requests())
    server.start()
    yield server
    server.state.end()


@dataclass
class Moments:
    """When this test did what, in seconds since the epoch."""

    killed: float = 0.0
    stopped: float = 0.0
    ended: float = 0.0


def disturb(own: OwnServer) -> Moments:
    """Kill a worker, fill the queue, restart the server, with calm between."""
    moments = Moments()
    time.sleep(CALM_S)
    first = own.worker("recommender")
    assert first is not None
    moments.killed = time.time()
    psutil.Process(first).kill()
    second = own.worker_other_than("recommender", first)
    time.sleep(CALM_S)
    moments.stopped = time.time()
    psutil.Process(second).suspend()
    time.sleep(STOPPED_S)
    psutil.Process(second).resume()
    time.sleep(CALM_S)
    moments.ended = time.time()
    own.state.end()
    own.start()
    time.sleep(CALM_S)
    return moments


def test_killed_worker_full_queue_and_restart_are_in_the_report(
    own: OwnServer, workspace: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        str(ROOT / "run"), "loadtest", "steady", "--via", "torchserve",
        "--workspace", str(tmp_path), "--catalog", str(workspace.catalog), "--rate", str(RATE),
        "--seconds", str(LONGEST_S), "--warm-up", "1", "--timeout", "20",
        "--mix", "recommend history=1",
        "--traffic", "cold_share=0", "--traffic", "bad_share=0", "--slo", "p99=1s",
        "--out", str(out),
    ]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           env={**os.environ, "COLUMNS": "200"})  # fmt: skip
    try:
        wait_for_load(own, run)
        moments = disturb(own)
    finally:
        run.send_signal(signal.SIGINT)
        printed = run.communicate()[0]
    assert run.returncode == 1, printed
    record = read_record(out / "record.json")
    check_killed(at(record, moments.killed), record, moments)
    check_full_queue(at(record, moments.stopped))
    check_restart(at(record, moments.ended))
    html = (out / "report.html").read_text()
    assert "is in its place" in html
    assert "the server was unreachable" in html


def wait_for_load(own: OwnServer, run: "subprocess.Popen[str]") -> None:
    """Until requests come by the second."""
    probe = TorchServeProbe(own.state)
    before = probe.look()
    assert before is not None
    while True:
        assert run.poll() is None, run.communicate()[0]
        now = probe.look()
        if now is not None and now.counts.requests > before.counts.requests + 2 * RATE:
            probe.close()
            return
        time.sleep(0.2)


def at(record: RunRecord, moment: float) -> Incident:
    """The incident that holds a moment, or begins within a second of it."""
    second = moment - record.started_at.timestamp()
    found = incidents(Timeline.of(record))
    holding = [one for one in found if one.start_s - 2 <= second <= one.end_s]
    assert holding, (second, found)
    return holding[0]


def check_killed(one: Incident, record: RunRecord, moments: Moments) -> None:
    second = moments.killed - record.started_at.timestamp()
    assert abs(one.start_s - second) <= 2
    assert any("worker" in sign and "ended" in sign for sign in one.signs), one
    assert one.lost + one.delayed > 0
    assert one.recovery_s is not None
    assert one.recovery_s <= moments.stopped - moments.killed


def check_full_queue(one: Incident) -> None:
    assert one.errors.get("503", 0) > 0, one
    assert one.delayed > 0
    assert one.worst_ms > 1000
    assert one.recovery_s is not None
    assert one.recovery_s >= STOPPED_S - 4


def check_restart(one: Incident) -> None:
    assert "the server was unreachable" in one.signs, one
    assert one.lost > RATE
    assert one.recovery_s is not None
