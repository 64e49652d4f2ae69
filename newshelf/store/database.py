"""The event store's database: connections, migrations, and checkpoints of SQLite."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from math import log
from pathlib import Path
from typing import Any
from zlib import crc32

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from newshelf.errors import SettingsError, Unavailable

_BUSY_TIMEOUT_S = 5.0
"""Maximum wait of a SQLite writer for another process's transaction."""
_LOCKED_PAUSE_S = 0.0005
"""SQLite itself would sleep longer and longer; a change of a product takes milliseconds."""
_NO_RESET: dict[str, Any] = {"pool_reset_on_return": None}
"""For single statements, which leave no transaction to roll back."""
_POSTGRESQL = {
    "connect_timeout": 5,
    # A connection on which nothing is acknowledged, or whose peer is silent, fails after some
    # 15 s. The system's default is a quarter of an hour.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""libpq's parameters, in seconds; ``tcp_user_timeout`` in milliseconds."""
_FORMS = "sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"


class Database:
    """Connections to one database, for every thread; ``Unavailable`` if it does not answer."""

    def __init__(self, url: str) -> None:
        """Connect lazily; raise ``SettingsError`` for an invalid URL."""
        parsed = _parsed(url)
        if parsed.get_backend_name() == "sqlite":
            self._engine, self._writer, self._quick = _sqlite(parsed)
        else:
            self._engine = self._writer = _postgresql(parsed)
            self._quick = _postgresql(parsed, isolation_level="AUTOCOMMIT", **_NO_RESET)

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file; None for PostgreSQL."""
        is_sqlite = self._engine.dialect.name == "sqlite"
        return Path(self._engine.url.database or "") if is_sqlite else None

    @property
    def dialect(self) -> Dialect:
        """The SQLAlchemy dialect."""
        return self._engine.dialect

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database."""
        with self._unavailable(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that is committed at the end."""
        with self._unavailable(), self._writer.begin() as connection:
            yield connection

    def execute_once(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Execute one statement, with the driver's placeholders, as a transaction of its own.

        It bypasses SQLAlchemy and takes one step of SQLite, or one round trip to PostgreSQL, where
        a transaction takes three. At each step the writer waits for the GIL of a busy event loop.
        """
        with self._unavailable(), closing(self._quick.raw_connection()) as connection:
            try:
                cursor = connection.cursor()
                _unlocked(lambda: cursor.execute(sql, values))
                return list(cursor.fetchall()) if cursor.description else []
            except self.dialect.loaded_dbapi.Error as error:
                # Its state is unknown, so the pool opens a new one.
                connection.invalidate()
                of_driver = self.dialect.loaded_dbapi.Error
                raise DBAPIError.instance(sql, None, error, of_driver) from error

    async def connect_async(self) -> psycopg.AsyncConnection[Any]:
        """Return an autocommit connection to PostgreSQL, or raise ``psycopg.Error``."""
        # The first element is for drivers that take a connection string.
        _, options = self.dialect.create_connect_args(self._engine.url)
        return await psycopg.AsyncConnection.connect(
            autocommit=True, **options, **_connect_options(self._engine.url)
        )

    def truncate_log(self) -> None:
        """Empty SQLite's log, which holds earlier states of rows."""
        until_s = time.monotonic() + _LOG_WAIT_S
        while self.sqlite_file:
            with self._unavailable(), closing(self._writer.raw_connection()) as connection:
                cursor = connection.cursor()
                ((busy, *_),) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if not busy:
                return
            if time.monotonic() > until_s:
                raise Unavailable("the log of the event store is in use; try again")
            # A reader, or ``Checkpoints``, is at it.
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        """Close all connections."""
        for engine in (self._engine, self._writer, self._quick):
            engine.dispose()

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (DataError, IntegrityError):
            # Invalid values, not an unavailable database.
            raise
        # The driver's error: of a connection opened without SQLAlchemy.
        except (DBAPIError, PoolTimeout, self.dialect.loaded_dbapi.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            where = self._engine.url.render_as_string(hide_password=True)
            reason = str(cause).partition("\n")[0]
            raise Unavailable(f"the event store {where} cannot be used: {reason}") from error


def _postgresql(url: URL, **options: Any) -> Engine:
    return create_engine(url, connect_args=_connect_options(url), **options)


def _connect_options(url: URL) -> dict[str, Any]:
    # The URL's settings take precedence.
    return {name: value for name, value in _POSTGRESQL.items() if name not in url.query}


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        # Do not repeat the text: it may hold a password.
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
    """Return engines for reading, for writing, and for single statements."""
    path = Path(url.database or "").absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Private: it holds what shoppers did. The WAL's files take over the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise SettingsError(f"cannot open the event store {path}: {error.strerror}") from error
    at = url.set(database=str(path))
    # Immediate: a transaction that reads first and then finds another's write fails at once,
    # whatever its timeout.
    return (
        _sqlite_engine(at, "BEGIN"),
        _sqlite_engine(at, "BEGIN IMMEDIATE"),
        _sqlite_engine(at, **_NO_RESET),
    )


def _sqlite_engine(url: URL, begin: str | None = None, **options: Any) -> Engine:
    # ``_unlocked`` waits for locks of single statements.
    arguments = {"timeout": _BUSY_TIMEOUT_S if begin else 0.0, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, **options)
    event.listen(engine, "connect", _set_up)
    if begin is not None:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver would begin transactions implicitly, and too late.
    connection.isolation_level = None
    # SQLite has ln only with a compile-time option.
    connection.create_function("ln", 1, log, deterministic=True)
    connection.create_function("crc32", 1, lambda text: crc32(text.encode()), deterministic=True)
    use_log(connection)
    for pragma in (
        # A commit is in the system's cache: a killed process loses nothing, and a power cut at
        # most the last commits.
        "synchronous = NORMAL",
        "foreign_keys = ON",
        # Nothing of a deleted row stays in the file.
        "secure_delete = ON",
        # Every thousandth commit would wait for the disk; a thread of Checkpoints does it.
        "wal_autocheckpoint = 0",
        "cache_size = -65536",
        "mmap_size = 268435456",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def use_log(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite's busy timeout does not apply here."""
    _unlocked(lambda: connection.execute("PRAGMA journal_mode = WAL").close())


def _unlocked(execute: Callable[[], object]) -> object:
    """Execute, again and again as long as another process's transaction has SQLite's lock."""
    end_s = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            return execute()
        except sqlite3.OperationalError as error:
            # The lowest byte; the others say which kind of lock it is.
            locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not locked or time.monotonic() > end_s:
                raise
            time.sleep(_LOCKED_PAUSE_S)


_SCRIPTS = Path(__file__).with_name("migrations")
_LOCK = 0x6E657773
"""Advisory lock number; no other program of the database may use it."""


def migrate(database: Database) -> None:
    """Run the missing migrations, one process at a time, or raise ``SettingsError``."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    try:
        with database.writing() as connection:
            lock(connection, _LOCK)
            _refuse_unknown(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except Unavailable as error:
        raise SettingsError(f"{error.message}. Is its URL right, and is it up?") from error


def lock(connection: Connection, key: int) -> None:
    """Take an advisory lock of PostgreSQL; SQLite's transaction is the only writer already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _refuse_unknown(connection: Connection) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    if current is not None and current not in known:
        raise SettingsError(
            f"the event store has the schema {current}, which this Newshelf does not know: it was "
            "made by a newer one, or before the first release. Run that one, or give another store "
            "(./run events export of that one saves the feedback)"
        )


_LOG = logging.getLogger(__name__)
_PAUSE_S = 0.1
"""Short, so that each copy is small and blocks writers' disk access briefly."""
_LEAST_BYTES = 4 * 2**20
"""Smaller logs are not copied."""
_MOST_BYTES = 128 * 2**20
"""Size from which the log restarts in the same file; truncating it would take longer."""
_TRIES = 5
_LOG_WAIT_S = 10.0


class Checkpoints:
    """A thread that copies SQLite's write-ahead log back into the database.

    By itself SQLite copies within the commit that fills the log, which delays a request by tens of
    milliseconds. The thread copies all the time, without blocking anybody, so that little is left
    when the log restarts, which blocks writers.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        copied = (0, 0)
        while not self._ended.wait(_PAUSE_S):
            now = self._state()
            if now != copied and now[0] >= _LEAST_BYTES:
                try:
                    self._copy()
                except sqlite3.Error as error:
                    # For example a full disk; the log waits.
                    _LOG.warning("the event store's log was not copied back: %s", error)
                copied = now

    def _state(self) -> tuple[int, int]:
        try:
            found = self._log.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def _copy(self) -> None:
        # No timeout: waiting for readers would block writers.
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=0)) as connection:
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages * page_bytes < _MOST_BYTES:
                return
            for _ in range(_TRIES):
                # Copy once more what came meanwhile: the less is left, the shorter the block.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                if not busy:
                    return
