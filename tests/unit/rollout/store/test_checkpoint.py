"""The log of SQLite stays small, and nobody waits for it."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from newshelf.rollout.store import EventStore, checkpoint

MOST_BYTES = 200_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whose logs are looked after all the time, and from a small size on."""
    monkeypatch.setattr(checkpoint, "_MOST_BYTES", MOST_BYTES)
    monkeypatch.setattr(checkpoint, "_PAUSE_S", 0.01)
    return tmp_path


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_log_begins_anew_under_two_writers(folder: Path, exposure) -> None:
    log = folder / "events.db-wal"
    url = f"sqlite:///{folder}/events.db"
    with EventStore.open(url) as store, EventStore.open(url) as other:
        seen = []
        for number in range(200):
            for writer in (store, other):
                writer.add_exposures([exposure("ring")])
            seen.append(log.stat().st_size)
            if number % 20 == 0:
                until(lambda: log.stat().st_size < MOST_BYTES)
        assert max(seen) < 20 * MOST_BYTES
        # It went down, more than once, while the stores stayed open.
        assert sum(after < before for before, after in pairwise(seen)) > 1
        assert len(list(store.exposures())) == 400


def test_a_long_look_keeps_no_writer_waiting(folder: Path, exposure) -> None:
    url = f"sqlite:///{folder}/events.db"
    log = folder / "events.db-wal"
    with EventStore.open(url) as store, EventStore.open(url) as other:
        with other._database.reading() as connection:
            seen = connection.exec_driver_sql("SELECT count(*) FROM exposures")
            assert seen.scalar() == 0
            waits = []
            while log.stat().st_size < 3 * MOST_BYTES:
                began = time.monotonic()
                store.add_exposures([exposure("ring")])
                waits.append(time.monotonic() - began)
            # SQLite's own way waits for the reader with the writers' lock in its hand, five
            # seconds each time, and often: it is every second in which a write comes through.
            assert sorted(waits)[len(waits) // 2] < 1
            assert connection.exec_driver_sql("SELECT count(*) FROM exposures").scalar() == 0
        until(lambda: log.stat().st_size < MOST_BYTES)
        assert len(list(store.exposures())) == len(waits)
