"""The log of SQLite stays small, and nobody waits for it."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from newshelf.store import database as checkpoint
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

MOST_BYTES = 200_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whose logs are looked after all the time, and from a small size on."""
    monkeypatch.setattr(checkpoint, "_LEAST_BYTES", 0)
    monkeypatch.setattr(checkpoint, "_MOST_BYTES", MOST_BYTES)
    monkeypatch.setattr(checkpoint, "_PAUSE_S", 0.01)
    return tmp_path


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_log_begins_anew_under_two_writers(folder: Path, exposure) -> None:
    database, log = folder / "events.db", folder / "events.db-wal"
    written, largest = 0, 0
    with EventStore.open(f"sqlite:///{database}") as store:
        with EventStore.open(f"sqlite:///{database}") as other:

            def write() -> bool:
                nonlocal written, largest
                for writer in (store, other):
                    writer.write(WriteBatch(exposures=[exposure("ring")]))
                    written += 1
                largest = max(largest, log.stat().st_size)
                # A commit takes some pages of 4 KiB.
                return written * 4096 > 10 * MOST_BYTES

            until(write)
        assert largest < written * 4096
        # What is copied back is in the file itself.
        assert database.stat().st_size > 0.05 * written * 4096
        assert len(list(store.exposures())) == written


def test_a_long_look_keeps_no_writer_waiting(folder: Path, exposure) -> None:
    url = f"sqlite:///{folder}/events.db"
    log = folder / "events.db-wal"
    with EventStore.open(url) as store, EventStore.open(url) as other:
        with other.database.reading() as connection:
            seen = connection.exec_driver_sql("SELECT count(*) FROM exposures")
            assert seen.scalar() == 0
            waits = []
            while log.stat().st_size < 5 * MOST_BYTES:
                began = time.monotonic()
                store.write(WriteBatch(exposures=[exposure("ring")]))
                waits.append(time.monotonic() - began)
            # Who waits for the reader does so with the writers' lock in its hand, five seconds
            # each time: then it is only now and then that a write comes through.
            assert sorted(waits)[len(waits) // 2] < 1
            assert connection.exec_driver_sql("SELECT count(*) FROM exposures").scalar() == 0
        assert len(list(store.exposures())) == len(waits)
