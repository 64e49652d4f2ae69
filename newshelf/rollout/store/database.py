"""Opens a database: SQLite with the settings that many writing processes need, or PostgreSQL."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import log
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from zlib import crc32

import psycopg
from sqlalchemy import URL, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from newshelf.errors import SettingsError, Unavailable

__all__ = ["Database", "use_log"]

_BUSY_TIMEOUT_S = 5.0
"""How long a writer of SQLite waits for another process's transaction."""
_LOCKED_PAUSE_S = 0.01
_NO_RESET: dict[str, Any] = {"pool_reset_on_return": None}
"""Single statements leave no transaction behind that would have to be rolled back."""
_POSTGRESQL = {
    "connect_timeout": 5,
    # Of a network that swallows everything: a connection on which what was sent is not
    # acknowledged, or which is silent and gives no sign of life, fails after some 15 s. The
    # system alone would hold on to it for a quarter of an hour.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""libpq's parameters; seconds, but milliseconds for ``tcp_user_timeout``."""
_FORMS = "sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"


class Database:
    """Connections to one database, for every thread."""

    def __init__(self, url: str) -> None:
        """Connect lazily.

        Args:
            url: as ``EventStore.open`` takes it.

        Raises:
            SettingsError: it is no URL, or of a database that is not supported.
        """
        parsed = _parsed(url)
        if parsed.get_backend_name() == "sqlite":
            self._engine, self._writer, self._quick = _sqlite(parsed)
        else:
            self._engine = self._writer = _postgresql(parsed)
            self._quick = _postgresql(parsed, isolation_level="AUTOCOMMIT", **_NO_RESET)

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file; None of PostgreSQL."""
        is_sqlite = self._engine.dialect.name == "sqlite"
        return Path(self._engine.url.database or "") if is_sqlite else None

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's."""
        return self._engine.dialect

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that sees one state of the database.

        Raises:
            Unavailable: the database does not answer.
        """
        with self._unavailable(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end.

        Raises:
            Unavailable: the database does not answer, or is locked for too long.
        """
        with self._unavailable(), self._writer.begin() as connection:
            yield connection

    def write_once(self, sql: str, values: Sequence[Any]) -> None:
        """Execute one statement, which is a transaction by itself.

        It goes past SQLAlchemy, and takes one step of SQLite, or one message to PostgreSQL and
        one back, where a transaction takes three: at each of them, and whenever this thread has
        Python's lock for long, a busy event loop keeps the writer waiting.

        Args:
            sql: with the driver's own placeholders.
            values: for them.

        Raises:
            Unavailable: the database does not answer, or is locked for too long.
        """
        with self._unavailable():
            connection = self._quick.raw_connection()
            try:
                connection.cursor().execute(sql, values)
            except self.dialect.loaded_dbapi.Error as error:
                # Whatever state it is in: the next one is new.
                connection.invalidate()
                of_driver = self.dialect.loaded_dbapi.Error
                raise DBAPIError.instance(sql, None, error, of_driver) from error
            finally:
                connection.close()

    async def connect_async(self) -> psycopg.AsyncConnection[Any]:
        """A connection to PostgreSQL for an event loop; each statement is a transaction.

        Raises:
            psycopg.Error: the server does not answer.
        """
        # The first is an empty text, for drivers that must have one.
        _, options = self.dialect.create_connect_args(self._engine.url)
        return await psycopg.AsyncConnection.connect(
            autocommit=True, **options, **_connect_options(self._engine.url)
        )

    def close(self) -> None:
        """Close all connections."""
        for engine in (self._engine, self._writer, self._quick):
            engine.dispose()

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (DataError, IntegrityError):
            # The values are at fault, not the database.
            raise
        # The driver's own: of a connection that is opened past SQLAlchemy.
        except (DBAPIError, PoolTimeout, self.dialect.loaded_dbapi.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            where = self._engine.url.render_as_string(hide_password=True)
            reason = str(cause).partition("\n")[0]
            raise Unavailable(f"the event store {where} cannot be used: {reason}") from error


def _postgresql(url: URL, **options: Any) -> Engine:
    return create_engine(url, connect_args=_connect_options(url), **options)


def _connect_options(url: URL) -> dict[str, Any]:
    # A setting of the URL's own wins.
    return {name: value for name, value in _POSTGRESQL.items() if name not in url.query}


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


def _sqlite(url: URL) -> tuple[Engine, Engine, Engine]:
    """For reading, for writing, and for single statements."""
    path = Path(url.database or "").absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What shoppers did is nobody else's; the WAL's files take over the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise SettingsError(f"cannot open the event store {path}: {error.strerror}") from error
    at = url.set(database=str(path))
    # Immediate: a transaction that first reads, and then finds that another has written, would
    # fail at once, however long it is ready to wait.
    return (
        _sqlite_engine(at, "BEGIN"),
        _sqlite_engine(at, "BEGIN IMMEDIATE"),
        _sqlite_engine(at, **_NO_RESET),
    )


def _sqlite_engine(url: URL, begin: str | None = None, **options: Any) -> Engine:
    arguments = {"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, **options)
    event.listen(engine, "connect", _set_up)
    if begin is not None:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver would begin transactions by itself, and late.
    connection.isolation_level = None
    # Built into SQLite only with an option of its compilation.
    connection.create_function("ln", 1, log, deterministic=True)
    connection.create_function("crc32", 1, lambda text: crc32(text.encode()), deterministic=True)
    use_log(connection)
    for pragma in (
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


def use_log(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite itself does not wait here for another process."""
    end_s = monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            # The lowest byte: the others say of what kind the lock is. A file that cannot be
            # written will not become so by waiting.
            locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not locked or monotonic() > end_s:
                raise
            sleep(_LOCKED_PAUSE_S)
        else:
            return
