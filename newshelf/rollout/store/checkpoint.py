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
_MOST_BYTES = 128 * 2**20
"""From which size of the log on it is copied: some seconds' worth, at a thousand answers each."""
_TRIES, _BETWEEN_S = 100, 0.01


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
        while not self._ended.wait(_PAUSE_S):
            if self._bytes() >= _MOST_BYTES:
                try:
                    self._copy()
                except sqlite3.Error as error:
                    # The disk is full, or the like: the log waits.
                    _LOG.warning("the event store's log was not copied back: %s", error)

    def _bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def _copy(self) -> None:
        """Copy nearly all while writers go on, then the rest while they stand still."""
        # No waiting: whoever waits for readers to end keeps writers from beginning.
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            for _ in range(_TRIES):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy or self._ended.wait(_BETWEEN_S):
                    return
        finally:
            connection.close()
