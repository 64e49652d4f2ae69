"""The migrations make the schema of the code."""

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from newshelf.errors import SettingsError
from newshelf.store.database import Database, migrate
from newshelf.store.schema import METADATA, feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch


@pytest.fixture
def url(bare_url: str) -> str:
    return bare_url


@pytest.fixture
def database(url: str):
    found = Database(url)
    yield found
    found.close()


def tables(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version"}


def test_the_migrated_schema_is_that_of_the_code(database: Database) -> None:
    migrate(database)
    assert tables(database) == set(METADATA.tables)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
        inspector = inspect(connection)
        for name, table in METADATA.tables.items():
            found = {column["name"]: column["nullable"] for column in inspector.get_columns(name)}
            assert found == {column.name: column.nullable for column in table.columns}


def test_a_store_that_is_up_to_date_keeps_its_rows(url: str, exposure) -> None:
    kept = exposure("ring")
    with EventStore.open(url) as store:
        store.write(WriteBatch(exposures=[kept]))
    with EventStore.open(url) as store:
        assert list(store.exposures()) == [kept]


def test_processes_may_start_at_once(url: str, exposure) -> None:
    start, failures = threading.Barrier(4), []

    def begin(number: int) -> None:
        start.wait()
        try:
            with EventStore.open(url) as store:
                store.write(WriteBatch(exposures=[exposure("ring", request_id=str(number))]))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with EventStore.open(url) as store:
        assert {one.request_id for one in store.exposures()} == set("0123")


def test_an_unknown_schema_is_refused_and_left_alone(database: Database, url: str) -> None:
    migrate(database)
    for number in ("9999", "0003"):
        with database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :n"), {"n": number})
        with pytest.raises(SettingsError, match=rf"schema {number}.*newer one, or before"):
            EventStore.open(url)
        with database.reading() as connection:
            assert connection.execute(text("SELECT * FROM alembic_version")).scalar() == number
    assert tables(database) == set(METADATA.tables)


def test_a_migration_that_fails_changes_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr(feedback, "create", fail)
    with pytest.raises(RuntimeError, match="half way"):
        migrate(database)
    assert tables(database) == set()
