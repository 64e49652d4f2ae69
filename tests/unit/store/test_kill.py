"""What was acknowledged is there, once, whichever process is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from psycopg import sql

from benchmarks.store.postgres import Postgres
from newshelf.pipeline.workspace import ROOT
from newshelf.store.store import EventStore

SCRIPT = Path(__file__).with_name("writing_process.py")
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))]


class Writer:
    """A process that writes, and what it said was stored."""

    def __init__(self, url: str, name: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-P", SCRIPT, url, name],
                stdout=said,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def acknowledged(self) -> list[str]:
        # A line that was cut off was not said.
        return self._log.read_text().rpartition("\n")[0].splitlines()

    def wait_for(self, rows: int) -> None:
        """Until so many more were acknowledged."""
        goal, deadline = len(self.acknowledged()) + rows, time.monotonic() + 120
        while len(self.acknowledged()) < goal:
            assert self.process.poll() is None, "the writer failed"
            assert time.monotonic() < deadline, "the writer is stuck"
            time.sleep(0.01)


@contextmanager
def writer(url: str, name: str, folder: Path) -> Iterator[Writer]:
    """Killed at the end."""
    one = Writer(url, name, folder / f"{name}.log")
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


def check(url: str, writers: list[Writer], *, resent: bool = False) -> None:
    """All that was acknowledged is stored, nothing twice."""
    said = [line.split() for one in writers for line in one.acknowledged()]
    shown = {name for kind, name in said if kind == "exposure"}
    done = {name for kind, name in said if kind.startswith("feedback")}
    outcomes = {kind for kind, _ in said} - {"exposure"}
    # An event is its own duplicate when the answer to its commit was lost.
    assert outcomes <= {"feedback:stored", *(["feedback:duplicate"] if resent else [])}
    with EventStore.open(url) as store:
        answers = [one.request_id for one in store.exposures()]
        events = [one.event_id for one in store.feedback()]
    assert len(answers) == len(set(answers))
    assert len(events) == len(set(events))
    assert shown <= set(answers)
    assert done <= set(events)
    assert set(events) <= set(answers)


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_writers_are_killed_at_any_moment(url: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    writers = []
    for number in range(4):
        with ExitStack() as stack:
            pair = [stack.enter_context(writer(url, f"{number}{name}", tmp_path)) for name in "ab"]
            for one in pair:
                one.wait_for(100)
            time.sleep(chance.random() * 0.2)
            pair[0].process.kill()
            # The other goes on: a killed process leaves no lock behind.
            pair[1].wait_for(50)
        writers += pair
        check(url, writers)


Break = Callable[[Postgres], None]


def end_connections(server: Postgres) -> None:
    server.execute(
        sql.SQL(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    )


def kill_a_backend(server: Postgres) -> None:
    """The server then ends all its processes and recovers."""
    backends = [
        child
        for child in psutil.Process(server.pid).children()
        if any("newshelf" in part for part in child.cmdline())
    ]
    assert backends
    backends[0].kill()


def restart(server: Postgres) -> None:
    server.stop()
    time.sleep(0.3)
    server.start()


def kill_the_server(server: Postgres) -> None:
    processes = psutil.Process(server.pid).children()
    server.stop(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=60)
    server.start()


@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize("disturb", [end_connections, kill_a_backend, restart, kill_the_server])
def test_the_database_goes_away_under_a_writer(
    postgres: Postgres, tmp_path: Path, disturb: Break
) -> None:
    url = postgres.create_database(f"broken_{disturb.__name__}")
    with writer(url, "a", tmp_path) as one:
        for _ in range(2):
            one.wait_for(100)
            disturb(postgres)
        # It found its way back by itself.
        one.wait_for(100)
    check(url, [one], resent=True)
