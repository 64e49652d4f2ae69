"""Brings a database to the schema of this code, with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from newshelf.errors import SettingsError, Unavailable
from newshelf.rollout.store.database import Database

__all__ = ["downgrade", "migrate"]

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
