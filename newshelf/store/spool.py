"""The spool: a local file for rows that the event store cannot take now.

All processes of a gateway share one SQLite file: SQLite undoes an interrupted commit, and any
process replays the rows of a dead one.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from newshelf.errors import InvalidField, Unavailable
from newshelf.store.database import use_log
from newshelf.store.records import Exposure, Feedback, FeedbackOutcome, ShadowAnswer
from newshelf.store.write import WriteBatch

_LOG = logging.getLogger(__name__)
_KINDS: dict[str, type[BaseModel]] = {
    "exposures": Exposure,
    "shadow": ShadowAnswer,
    "feedback": Feedback,
}
"""Fields of ``WriteBatch`` in the order of replay: answers before events that name them."""
_ROWS = 100
_PAGE_BYTES = 4096
_BUSY_S = 5.0
_EXPECTED: frozenset[FeedbackOutcome] = frozenset({"stored", "duplicate", "unjoined", "erased"})
_TABLE = """
CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS spool_kind ON spool (kind, id);
"""
_INSERT = """
INSERT INTO spool (id, kind, body)
VALUES (max(?, (SELECT coalesce(max(id), 0) + 1 FROM spool)), ?, ?)
"""
"""The id of a row is its time in microseconds, or the next free one."""
_USAGE = """
SELECT count(*), coalesce(min(id), 0),
  (SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count)
FROM spool WHERE kind <> 'refused'
"""

Write = Callable[[WriteBatch], list[FeedbackOutcome]]


class Spool:
    """The spool of one gateway, for every thread and process."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self.max_bytes = max(8, max_bytes // _PAGE_BYTES) * _PAGE_BYTES
        self._local = threading.local()

    def check(self) -> None:
        """Rename a damaged file, so that a new one is created; call it once, at the start."""
        if not self._path.exists():
            return
        try:
            connection = self._connection()
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found == "ok":
                return
            connection.close()
        except (sqlite3.OperationalError, OSError) as error:
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            found = str(error)
        self._local = threading.local()
        aside = self._path.with_name(f"{self._path.name}.damaged")
        _LOG.error("the spool %s is damaged (%s); it is kept as %s", self._path, found, aside)
        self._path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def write(self, batch: WriteBatch) -> list[FeedbackOutcome]:
        """Append the whole batch and wait for the disk, or append nothing."""
        at_us = time.time_ns() // 1_000
        every = ((kind, row) for kind in _KINDS for row in getattr(batch, kind))
        self._change(_INSERT, [(at_us, kind, row.model_dump_json()) for kind, row in every])
        return ["spooled"] * len(batch.feedback)

    def probe(self) -> None:
        """Write and remove a row; raises as ``write`` does."""
        self._change("INSERT INTO spool (kind, body) VALUES ('probe', ?)", [("x" * _PAGE_BYTES,)])
        self._change("DELETE FROM spool WHERE kind = ?", [("probe",)])

    def holds(self, *kinds: str) -> bool:
        """Return whether rows of these kinds, or of any kind, wait for replay."""
        if not self._path.exists():
            return False
        return any(self._rows(kind, 1) for kind in kinds or _KINDS)

    def usage(self) -> tuple[int, int, float]:
        """Return the number of rows that wait, the bytes in use, and the oldest row's age in s."""
        if not self._path.exists():
            return 0, 0, 0.0
        [(rows, oldest_us, pages)] = self._read(_USAGE)
        return rows, pages * _PAGE_BYTES, time.time() - oldest_us / 1e6 if rows else 0.0

    def replay(self, write: Write) -> bool:
        """Write the oldest rows to the store and remove them; return whether more may wait.

        One process at a time. Writing a row twice changes nothing in the store, so the next process
        repeats what a killed one left. A row that the store cannot hold stays and is not tried
        again.
        """
        try:
            with FileLock(self._path.with_name(f"{self._path.name}.lock"), timeout=0):
                for kind in _KINDS:
                    if rows := self._rows(kind, _ROWS):
                        self._replay(kind, rows, write)
                        self._truncate_log()
                        return True
        except Timeout:
            pass
        except OSError as error:
            raise self._unusable(error) from error
        return False

    def _replay(self, kind: str, rows: Sequence[tuple[int, str]], write: Write) -> None:
        try:
            read: list[Any] = [_KINDS[kind].model_validate_json(body) for _, body in rows]
            outcomes = write(WriteBatch(**{kind: read}))
        except (ValidationError, InvalidField) as error:
            if len(rows) == 1:
                _LOG.error("row %d of the spool %s is refused: %s", rows[0][0], self._path, error)
                self._change("UPDATE spool SET kind = 'refused' WHERE id = ?", [(rows[0][0],)])
                return
            middle = len(rows) // 2
            self._replay(kind, rows[:middle], write)
            self._replay(kind, rows[middle:], write)
            return
        self._change("DELETE FROM spool WHERE id = ?", [(number,) for number, _ in rows])
        if lost := [outcome for outcome in outcomes if outcome not in _EXPECTED]:
            _LOG.warning("of %d spooled events %d are not kept: %s", len(rows), len(lost), lost)

    def _truncate_log(self) -> None:
        """Empty the log, which holds removed rows, once no row is left to remove."""
        if not self.holds():
            with suppress(sqlite3.OperationalError):
                self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _rows(self, kind: str, most: int) -> list[Any]:
        return self._read(
            "SELECT id, body FROM spool WHERE kind = ? ORDER BY id LIMIT ?", kind, most
        )

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            return self._connection().execute(query, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _change(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(sql, rows)
                connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Private: it holds what shoppers did.
            self._path.touch(0o600)
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            # A commit returns when the disk has it.
            use_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA max_page_count = {self.max_bytes // _PAGE_BYTES}")
            connection.executescript(_TABLE)
            self._local.connection = connection
        return connection

    def _unusable(self, error: Exception) -> Unavailable:
        return Unavailable(f"the spool {self._path} cannot be used: {error}")
