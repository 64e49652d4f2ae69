"""Opens a database: SQLite with the settings that many writing processes need, or PostgreSQL.

Brings a database to the schema of this code, with Alembic.

Copies SQLite's write-ahead log back into the database, beside the writers.

SQLite does it within the commit that fills the log, which then waits for the disk: tens of
milliseconds, in a request's way. Here a thread copies all the time, which stops nobody, so that
little is left when the log begins anew, for which writers have to stand still.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import log
from pathlib import Path
from time import monotonic, sleep
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


_SCRIPTS = Path(__file__).with_name("migrations")
_LOCK = 0x6E657773
"""Any number that no other program of the same database takes for its advisory lock."""


def migrate(database: Database) -> None:
    """Run the migrations that are missing, in one transaction.

    Processes that start at once wait for each other.

    Raises:
        SettingsError: the server cannot be reached, or the schema is newer than this code.
    """
    try:
        with database.writing() as connection:
            _lock(connection)
            _refuse_newer(connection)
            command.upgrade(_config(connection), "head")
    except Unavailable as error:
        raise SettingsError(f"{error.message}. Is its URL right, and is it up?") from error


def downgrade(database: Database, revision: str) -> None:
    """Go back to ``revision``, or to ``base``: an empty database."""
    with database.writing() as connection:
        _lock(connection)
        command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _lock(connection: Connection) -> None:
    """SQLite's transaction holds the only write lock anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _refuse_newer(connection: Connection) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    if current is not None and current not in known:
        raise SettingsError(
            f"the event store has the schema {current}, which this Newshelf does not know: it was "
            "made by a newer one. Run that one, or give another store"
        )


_LOG = logging.getLogger(__name__)
_PAUSE_S = 0.1
"""The less there is to copy, the shorter the disk is kept from the writers."""
_LEAST_BYTES = 4 * 2**20
"""Smaller logs are let alone."""
_MOST_BYTES = 128 * 2**20
"""From which size on the log begins anew, in the same file: truncating it would take longer."""
_TRIES = 5


class Checkpoints:
    """A thread that looks after the log of one file."""

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
                    # The disk is full, or the like: the log waits.
                    _LOG.warning("the event store's log was not copied back: %s", error)
                copied = now

    def _state(self) -> tuple[int, int]:
        """Size and last change of the log."""
        try:
            found = self._log.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def _copy(self) -> None:
        # No waiting: whoever waits for readers to end keeps writers from beginning.
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages * page_bytes < _MOST_BYTES:
                return
            for _ in range(_TRIES):
                # Once more, of what came meanwhile: the less is left, the shorter is the stop.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                if not busy:
                    return
        finally:
            connection.close()
