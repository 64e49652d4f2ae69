"""Answers that the event loop stores itself, and what of them falls to the thread."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from newshelf.errors import InvalidField, Unavailable
from newshelf.store.database import Database
from newshelf.store.group_commit import GroupCommit
from newshelf.store.records import Exposure
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

only_postgresql = pytest.mark.parametrize(
    "url", [pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))], indirect=True
)


@pytest.fixture
def by_thread(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests whose answers the thread was given."""
    seen: list[str] = []
    write = store.write

    def note(writes: WriteBatch) -> list[str]:
        seen.extend(one.request_id for one in writes.exposures)
        return write(writes)

    monkeypatch.setattr(store, "write", note)
    return seen


def stored(store: EventStore) -> list[str]:
    return sorted(one.request_id for one in store.exposures())


def end_connections(url: str) -> int:
    """End every connection that last inserted an answer, as a failing server does."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND query LIKE 'INSERT INTO exposures%'"
        ).fetchall()
        while connection.execute(
            "SELECT 1 FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'INSERT INTO exposures%'"
        ).fetchall():
            time.sleep(0.01)
    return len(ended)


def test_sqlite_has_none(tmp_path: Path) -> None:
    with EventStore.open(f"sqlite:///{tmp_path}/events.db") as store:
        assert store.async_connections() == []


@only_postgresql
def test_an_answer_is_stored_when_the_call_returns(
    url: str, store: EventStore, by_thread: list[str], exposure: Callable[..., Exposure]
) -> None:
    async def main() -> None:
        group = GroupCommit(store, connections=store.async_connections())
        with EventStore.open(url) as other:
            for number in range(5):
                await group.exposure(exposure("ring", request_id=str(number)))
                assert stored(other) == [str(one) for one in range(number + 1)]
        await group.close()

    asyncio.run(main())
    assert by_thread == []


@only_postgresql
def test_more_than_there_are_lanes_share_statements(
    store: EventStore, by_thread: list[str], exposure: Callable[..., Exposure]
) -> None:
    names = sorted(f"{number:03}" for number in range(300))

    async def main() -> None:
        group = GroupCommit(store, connections=store.async_connections())
        # Each twice: it is kept once.
        await asyncio.gather(
            *(group.exposure(exposure("ring", request_id=name)) for name in names + names)
        )
        await group.close()

    asyncio.run(main())
    assert stored(store) == names
    assert by_thread == []


@only_postgresql
def test_an_answer_that_cannot_be_stored_fails_alone(
    store: EventStore, exposure: Callable[..., Exposure]
) -> None:
    async def main() -> list[object]:
        group = GroupCommit(store, connections=store.async_connections())
        answers = [exposure("ring", status=2**70 if number == 6 else 200) for number in range(40)]
        heard = await asyncio.gather(*map(group.exposure, answers), return_exceptions=True)
        await group.close()
        return heard

    heard = asyncio.run(main())
    assert [type(one) for one in heard if one is not None] == [InvalidField]
    assert isinstance(heard[6], InvalidField)
    assert len(stored(store)) == 39


@only_postgresql
def test_when_connections_end_the_thread_stores_and_lanes_are_opened_again(
    url: str, store: EventStore, by_thread: list[str], exposure: Callable[..., Exposure]
) -> None:
    async def main() -> None:
        connections = store.async_connections()[:1]
        group = GroupCommit(store, connections=connections)
        await group.exposure(exposure("ring", request_id="before"))
        assert await asyncio.to_thread(end_connections, url) == 1
        await group.exposure(exposure("ring", request_id="ended"))
        await group.exposure(exposure("ring", request_id="after"))
        await group.close()

    asyncio.run(main())
    assert stored(store) == ["after", "before", "ended"]
    assert by_thread == ["ended"]


@only_postgresql
def test_closing_writes_what_waits_and_takes_no_more(
    url: str, store: EventStore, exposure: Callable[..., Exposure]
) -> None:
    async def main() -> None:
        group = GroupCommit(store, connections=store.async_connections())
        tasks = [asyncio.create_task(group.exposure(exposure("ring"))) for _ in range(200)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(group.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="closed"):
            await group.exposure(exposure("vase"))
        await closing
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert len(stored(store)) == 200
    # Its connections are closed, too.
    assert end_connections(url) == 0


@only_postgresql
@pytest.mark.parametrize(("query", "expected"), [("", "15000"), ("tcp_user_timeout=700", "700")])
def test_a_dead_network_is_given_up_unless_the_url_says_when(
    url: str, query: str, expected: str
) -> None:
    database = Database(url + ("&" if "?" in url else "?") + query if query else url)

    async def by_connection() -> dict[str, str]:
        connection = await database.connect_async()
        async with connection:
            return connection.info.get_parameters()

    with database.reading() as connection:
        by_thread = connection.connection.driver_connection.info.get_parameters()
    database.close()
    for found in (by_thread, asyncio.run(by_connection())):
        assert found["tcp_user_timeout"] == expected
        assert found["keepalives_idle"] == "5"
