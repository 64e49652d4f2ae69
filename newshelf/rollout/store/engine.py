"""Opens a database: SQLite with the settings that many writing processes need, or PostgreSQL."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from newshelf.errors import SettingsError, Unavailable

__all__ = ["BUSY_TIMEOUT_S", "open_engine", "reading", "sqlite_file", "unavailable", "writing"]

BUSY_TIMEOUT_S = 5.0
"""How long a writer of SQLite waits for another process's transaction."""
_CONNECT_TIMEOUT_S = 5
_FORMS = "sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
_LOST = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""The database could not be reached, was shut down, is locked, or its disk is full."""


def open_engine(text: str) -> Engine:
    """Connect lazily to what ``text`` names.

    Raises:
        SettingsError: it is no URL, or of a database that is not supported.
    """
    url = _parsed(text)
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    return create_engine(
        url,
        pool_pre_ping=True,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
    )


def sqlite_file(engine: Engine) -> Path | None:
    """The database's file; None of PostgreSQL."""
    is_sqlite = engine.dialect.name == "sqlite"
    return Path(engine.url.database or "") if is_sqlite else None


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees one state of the database.

    Raises:
        Unavailable: the database cannot be reached.
    """
    with unavailable(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end.

    Raises:
        Unavailable: the database cannot be reached, or is locked for too long.
    """
    immediate = engine.execution_options(sqlite_begin="IMMEDIATE")
    with unavailable(engine), immediate.begin() as connection:
        yield connection


@contextmanager
def unavailable(engine: Engine) -> Iterator[None]:
    """Translate what a lost connection raises."""
    try:
        yield
    except _LOST as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        where = engine.url.render_as_string(hide_password=True)
        raise Unavailable(f"the event store {where} does not answer: {cause}") from error


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        # The text is not repeated: it may hold a password.
        raise SettingsError(f"the event store's URL cannot be read: give {_FORMS}") from error
    if url.drivername in {"postgresql", "postgresql+psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "sqlite+pysqlite"}:
        raise SettingsError(f"there is no event store in {url.drivername}: give {_FORMS}")
    if url.database in {None, "", ":memory:"} or url.query:
        raise SettingsError(
            "the event store needs a file, which other processes can open too: "
            "give sqlite:///FILE without options"
        )
    return url


def _sqlite(url: URL) -> Engine:
    path = Path(url.database or "").absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What shoppers did is nobody else's; the WAL's files take over the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise SettingsError(f"cannot open the event store {path}: {error.strerror}") from error
    engine = create_engine(
        url.set(database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver begins transactions late, and so not immediate: _begin does it.
    connection.isolation_level = None
    # Built into SQLite only with an option of its compilation.
    connection.create_function("ln", 1, log, deterministic=True)
    for pragma in (
        "journal_mode = WAL",
        # A commit is in the system's cache: a killed process loses nothing. A power cut may
        # lose the last commits, and damages nothing.
        "synchronous = NORMAL",
        "foreign_keys = ON",
        # A commit that happens to be the thousandth would wait for the disk: Checkpoints
        # does it beside.
        "wal_autocheckpoint = 0",
        "cache_size = -65536",
        "mmap_size = 268435456",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    # Immediate: a transaction that first reads, and then finds that another has written,
    # would fail at once, however long it is ready to wait.
    connection.exec_driver_sql(f"BEGIN {kind}")
