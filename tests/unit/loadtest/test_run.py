"""Whole runs against servers whose behaviour is known."""

import base64
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.own_cost import Delivered, measure_open
from benchmarks.servers import known_server, noop_server
from loadtest.record import read_record, write_record
from loadtest.recorder import LoadProgress
from loadtest.run import run_load
from loadtest.scenarios import Ramp
from loadtest.traffic import TrafficSettings
from newshelf.errors import CatalogError, ServerError
from newshelf.pipeline.workspace import ROOT
from tests.unit.loadtest.conftest import (
    ONE_KIND,
    MakePlan,
    Start,
    counted,
    errors,
    right,
)
from tests.unit.loadtest.server import address


def test_every_arrival_is_sent_and_accounted_for(plan: MakePlan, tmp_path: Path) -> None:
    heard: list[LoadProgress] = []
    moments: list[float] = []
    with noop_server() as url:
        asked = plan(url, rate=200, seconds=2, warm_up_s=0.5, traffic=TrafficSettings(bad_share=0))
        before = time.monotonic()
        record = run_load(asked, command="it", progress=heard.append, started=moments.append)
    arrivals = list(asked.arrivals(0))
    assert counted(record, "intended") == right(record) == len(arrivals)
    assert errors(record) == {}
    by_second = [sum(p.intended for p in record.load if p.second == s) for s in (0, 1)]
    assert by_second == [sum(int(a) == s for a in arrivals) for s in (0, 1)]
    assert record.loop == "open"
    assert record.scenario == "steady"
    assert record.seconds == 2
    assert record.settings["rate"] == 200
    assert heard[-1].right == len(arrivals)
    assert [one.at_s for one in heard] == sorted(one.at_s for one in heard)
    assert len(moments) == 1
    assert moments[0] > before + 0.5
    write_record(record, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record


def test_processes_share_the_rate_and_their_records_add_up(plan: MakePlan) -> None:
    with noop_server() as url:
        asked = plan(url, rate=300, seconds=2, processes=3, shape=Ramp())
        record = run_load(asked, command="it")
    arrivals = [list(asked.arrivals(stream)) for stream in range(3)]
    assert len({tuple(one) for one in arrivals}) == 3
    assert right(record) == sum(map(len, arrivals))
    assert record.generator.processes == 3
    assert record.scenario == "ramp"


def test_statuses_other_than_the_expected_are_errors(plan: MakePlan, start: Start) -> None:
    # The first request is the look whether it answers.
    server = start(statuses=(200, 503, 200, 422))
    record = run_load(plan(address(server), rate=40, seconds=2), command="it")
    found, total = errors(record), counted(record, "intended")
    assert found.keys() == {"503", "422"}
    assert right(record) + sum(found.values()) == total
    assert found["503"] == pytest.approx(total / 4, abs=1)


def test_a_bad_request_that_is_answered_with_200_is_an_error(plan: MakePlan, start: Start) -> None:
    traffic = ONE_KIND.model_copy(update={"bad_share": 0.5})
    record = run_load(plan(address(start()), traffic=traffic, rate=40, seconds=2), command="it")
    bad = sum(part.intended for part in record.load if part.kind == "bad")
    assert errors(record) == {"200": bad}
    assert bad > 10


def test_lost_connections_are_errors_of_their_requests_only(plan: MakePlan, start: Start) -> None:
    server = start(statuses=(200, 200, 0))
    record = run_load(plan(address(server), rate=40, seconds=2), command="it")
    found = errors(record)
    assert right(record) + sum(found.values()) == counted(record, "intended")
    assert right(record) > sum(found.values()) > 0


def test_an_answer_that_does_not_come_is_a_timeout(plan: MakePlan) -> None:
    """The request before the run is answered; the one worker then takes its time for each."""
    with known_server(service_ms=200, stall_at=4, stall_ms=60_000) as url:
        record = run_load(plan(url, rate=10, seconds=2, timeout_s=1.5), command="it")
    assert errors(record).keys() == {"timeout"}
    assert right(record) + errors(record)["timeout"] == counted(record, "intended")


def test_arrivals_beyond_those_in_flight_are_dropped_and_counted(plan: MakePlan) -> None:
    with known_server(service_ms=500, workers=1000) as url:
        record = run_load(plan(url, rate=40, seconds=2, max_in_flight=5), command="it")
    dropped = counted(record, "dropped")
    assert dropped > 0
    assert right(record) + dropped == counted(record, "intended")
    # Five at a time, half a second each, and those of the end.
    assert right(record) <= 5 * (2 / 0.5 + 1)


def test_clients_of_a_closed_loop_wait_and_think(plan: MakePlan, start: Start) -> None:
    server = start(delay_s=0.05)
    asked = plan(address(server), loop="closed", clients=4, seconds=2, processes=2)
    record = run_load(asked, command="it")
    assert record.loop == "closed"
    assert server.most_at_once == 4
    assert 0 < right(record) == counted(record, "intended") <= 4 * 2 / 0.05 + 4
    thinking = plan(address(server), loop="closed", clients=4, seconds=2, think_s=0.4)
    assert right(run_load(thinking, command="it")) < right(record) / 2


SERVER_AT = """
import sys
from benchmarks.servers import run_server, serve_noop
run_server(serve_noop, int(sys.argv[1]))
"""


def test_a_server_that_goes_and_comes_back_is_seen(plan: MakePlan) -> None:
    """Errors while it is away, and right answers again on new connections afterwards."""

    def serve_at(port: int) -> tuple[subprocess.Popen[str], int]:
        words = [sys.executable, "-c", SERVER_AT, str(port)]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    first, port = serve_at(0)
    servers = [first]
    right_before: list[int] = []

    def disturb(at: LoadProgress) -> None:
        if at.at_s > 2 and at.right > 30 and first.poll() is None:
            first.kill()
            first.wait()
        if at.errors > 30 and len(servers) == 1:
            right_before.append(at.right)
            servers.append(serve_at(port)[0])

    asked = plan(f"http://127.0.0.1:{port}", rate=60, seconds=10)
    try:
        record = run_load(asked, command="it", progress=disturb)
    finally:
        for server in servers:
            server.kill()
            server.communicate()
    found = errors(record)
    assert found["ConnectionRefusedError"] > 20
    assert right(record) > right_before[0]
    assert right(record) + sum(found.values()) == counted(record, "intended")
    away = {part.second for part in record.load if part.errors}
    assert away == set(range(min(away), max(away) + 1))
    assert 0 < min(away) <= max(away) < max(part.second for part in record.load)


def test_nobody_listening_is_said_before_any_load(plan: MakePlan) -> None:
    with noop_server() as url:
        pass
    with pytest.raises(ServerError, match=f"no server responds at {url} "):
        run_load(plan(url), command="it")


def test_a_refused_token_is_said_before_any_load(plan: MakePlan, start: Start) -> None:
    server = start(statuses=(401,))
    with pytest.raises(ServerError, match=r"refuses the token \(401"):
        run_load(plan(address(server), processes=2), command="it")
    assert len(server.asked) == 1


def test_a_good_request_that_fails_is_said_before_any_load(plan: MakePlan, start: Start) -> None:
    with pytest.raises(ServerError, match="'recommend history', with 500"):
        run_load(plan(address(start(statuses=(500,)))), command="it")


def test_a_catalogue_that_cannot_be_read_is_said_before_any_load(
    plan: MakePlan, tmp_path: Path
) -> None:
    with noop_server() as url, pytest.raises(CatalogError, match="there is no folder"):
        run_load(plan(url, catalog=tmp_path / "none"), command="it")


def test_requests_are_as_the_pool_has_them_with_the_token(plan: MakePlan, start: Start) -> None:
    server = start()
    token = {"Authorization": "Bearer t"}
    run_load(plan(address(server), headers=token, rate=30), command="it")
    assert {asked[3] for asked in server.asked} == {"Bearer t"}
    assert {asked[0] for asked in server.asked} == {"/predictions/recommender"}


INTERRUPTED = """
import sys
from pathlib import Path
from loadtest.record import write_record
from loadtest.run import run_load
from loadtest.scenarios import LoadPlan
from loadtest.traffic import TrafficSettings

traffic = TrafficSettings(mix={"recommend history": 1}, cold_share=0, bad_share=0)
load = {"rate": 50} if sys.argv[4] == "open" else {"loop": "closed", "clients": 2, "think_s": 0.02}
plan = LoadPlan(
    url=sys.argv[1], catalog=Path(sys.argv[2]), seconds=3600, warm_up_s=0, traffic=traffic, **load
)
record = run_load(plan, command="it", progress=lambda at: print(at.right, flush=True))
write_record(record, Path(sys.argv[3]))
"""


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_ctrl_c_ends_a_run_early_and_keeps_what_was_measured(
    shop: Path, tmp_path: Path, loop: str
) -> None:
    path = tmp_path / "record.json"
    with noop_server() as url:
        words = [sys.executable, "-c", INTERRUPTED, url, str(shop), str(path), loop]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while int(process.stdout.readline()) < 60:
                pass
            process.send_signal(signal.SIGINT)
            process.stdout.read()
        assert process.returncode == 0
    record = read_record(path)
    assert record.settings["interrupted"] is True
    assert 0 < record.seconds < 3600
    assert right(record) == counted(record, "intended") >= 60


def test_the_token_is_in_no_list_of_processes(plan: MakePlan, start: Start) -> None:
    server = start(delay_s=0.01)
    token = base64.b64encode(b"a very secret token").decode()
    lines: list[str] = []

    def look(_: LoadProgress) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(path.read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue

    run_load(plan(address(server), headers={"Authorization": token}), command="it", progress=look)
    assert any("loadtest.generator" in line for line in lines)
    assert not any(token in line for line in lines)


def test_what_an_open_loop_delivers_is_what_was_asked(plan: MakePlan) -> None:
    """Within sampling: a Poisson number of 2 seconds has a deviation of its square root."""
    found = Delivered(measure_open(400, seconds=2))
    assert found.answered_per_s == found.intended_per_s
    assert abs(found.intended_per_s - 400) < 5 * (400 / 2) ** 0.5
    assert 0 <= found.lateness_ms[50.0] <= found.lateness_ms[99.0]
    assert 0 < found.cpu_percent < 110
