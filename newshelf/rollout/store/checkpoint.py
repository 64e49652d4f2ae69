"""Copies SQLite's write-ahead log back into the database, beside the writers.

SQLite does it within the commit that fills the log, which then waits for the disk: tens of
milliseconds, in a request's way. Here a thread copies all the time, which stops nobody, so that
little is left when the log begins anew, for which writers have to stand still.
"""

import logging
import sqlite3
import threading
from pathlib import Path

__all__ = ["Checkpoints"]

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
