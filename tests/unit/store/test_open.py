"""What cannot be opened is told, with what to do."""

import contextlib
import os
import sqlite3
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.store.postgres import Postgres
from newshelf.errors import SettingsError, Unavailable
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("events.db", "sqlite:///FILE or postgresql"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:///events.db?mode=ro", "without options"),
        ("mysql://host/events", "no event store in mysql"),
        ("postgresql+asyncpg://host/events", "no event store in postgresql.asyncpg"),
    ],
)
def test_a_url_that_means_no_store(url: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        EventStore.open(url)


def test_a_server_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://shop:secret@/events?host={tmp_path}"
    with pytest.raises(SettingsError, match=r"cannot be used.*is it up") as told:
        EventStore.open(url)
    assert "secret" not in str(told.value)
    assert "shop" in str(told.value)


def test_a_url_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as told:
        EventStore.open("postgresql+psycopg//shop:secret@host")
    assert "secret" not in str(told.value)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot open"):
        EventStore.open(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_text("my notes\n" * 100)
    with pytest.raises(SettingsError, match=r"events\.db.*not a database"):
        EventStore.open(f"sqlite:///{path}")
    assert path.read_text() == "my notes\n" * 100


def test_a_locked_store_is_unavailable(tmp_path: Path, exposure, monkeypatch) -> None:
    monkeypatch.setattr("newshelf.store.database._BUSY_TIMEOUT_S", 0.05)
    url = f"sqlite:///{tmp_path}/events.db"
    with EventStore.open(url) as store, EventStore.open(url) as other:
        with other.database.writing(), pytest.raises(Unavailable, match="locked"):
            store.write(WriteBatch(exposures=[exposure("ring")]))
        # Reading goes on, and so does writing when the other is done.
        assert list(store.exposures()) == []
        store.write(WriteBatch(exposures=[exposure("ring")]))


def test_an_answer_waits_for_another_processes_change_no_longer_than_it_takes(
    tmp_path: Path, exposure, monkeypatch
) -> None:
    url, pauses, change = f"sqlite:///{tmp_path}/events.db", [], contextlib.ExitStack()
    with EventStore.open(url) as store, EventStore.open(url) as other:
        change.enter_context(other.database.writing())

        def sleep(pause_s: float) -> None:
            pauses.append(pause_s)
            if len(pauses) == 20:
                change.close()

        slept = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
        monkeypatch.setattr("newshelf.store.database.time", slept)
        store.write(WriteBatch(exposures=[exposure("ring")]))
        assert len(list(store.exposures())) == 1
    # SQLite's own pauses grow to a tenth of a second.
    assert pauses == [pauses[0]] * 20
    assert pauses[0] < 0.001


def test_files_are_private_whatever_the_mask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        EventStore.open(f"sqlite:///{tmp_path}/events.db").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "events.db").stat().st_mode) == 0o600


@pytest.mark.xdist_group("postgresql")
def test_a_store_whose_server_has_gone_is_unavailable_and_comes_back_with_it(
    exposure, feedback
) -> None:
    # Not the server that the other tests share.
    with Postgres(["fsync=off"]) as server, EventStore.open(server.url()) as store:
        store.write(WriteBatch(exposures=[exposure("ring", request_id="before")]))
        server.stop()
        # The first finds its connection broken, the others make none; each way of writing.
        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot be used"):
                store.write(WriteBatch(exposures=[exposure("ring")]))
            with pytest.raises(Unavailable, match="cannot be used"):
                store.write(WriteBatch(feedback=[feedback("ring", request_id="before")]))
            with pytest.raises(Unavailable, match="cannot be used"):
                store.rollouts.traffic()
        server.start()
        with contextlib.suppress(Unavailable):
            store.rollouts.traffic()
        assert store.rollouts.traffic().splits == ()
        store.write(WriteBatch(exposures=[exposure("ring", request_id="after")]))
        assert [one.request_id for one in store.exposures()] == ["before", "after"]


def test_only_a_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE anything (at INTEGER)")
    connect = sqlite3.connect

    def read_only(name: str, *arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(f"file:{name}?mode=ro", *arguments, uri=True, **options)

    waits: list[float] = []
    slept = SimpleNamespace(sleep=waits.append, monotonic=time.monotonic)
    monkeypatch.setattr("newshelf.store.database.time", slept)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", read_only)
    with pytest.raises(SettingsError, match="readonly database"):
        EventStore.open(f"sqlite:///{path}")
    assert waits == []


def test_a_new_file_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # In a file without the log yet, SQLite itself does not wait for a writer.
    other.execute("BEGIN IMMEDIATE")
    free = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    free.start()
    with EventStore.open(f"sqlite:///{path}") as store:
        assert store.rollouts.traffic().splits == ()
    free.join()
    other.close()
