"""Copies SQLite's write-ahead log back into the database, beside the writers.

SQLite does it within the commit that fills the log, which then waits for the disk: tens of
milliseconds, in a request's way.
"""

import logging
import sqlite3
import threading
from pathlib import Path

__all__ = ["Checkpoints"]

_LOG = logging.getLogger(__name__)
_PAUSE_S = 1.0
_COPY_BYTES = 16 * 2**20
"""From which size of the log on it is copied, without stopping anybody."""
_RESTART_BYTES = 256 * 2**20
"""From which size on writers are stopped, for the little that is left then, so that the log
begins anew. Without it, writers that never pause would make it grow for ever."""


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
        connection: sqlite3.Connection | None = None
        while not self._ended.wait(_PAUSE_S):
            size = self._size()
            if size < _COPY_BYTES:
                continue
            try:
                connection = connection or sqlite3.connect(self._path, isolation_level=None)
                self._copy(connection, size)
            except sqlite3.Error as error:
                # Another process is at it, or the disk is full: the log waits.
                _LOG.warning("the event store's log was not copied back: %s", error)
        if connection is not None:
            connection.close()

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    @staticmethod
    def _copy(connection: sqlite3.Connection, size: int) -> None:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if size >= _RESTART_BYTES:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
