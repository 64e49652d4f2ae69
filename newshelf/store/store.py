"""The event store: exposures, feedback, shadow answers and rollouts in one database."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import Table, func, select
from sqlalchemy.exc import StatementError
from sqlalchemy.sql.elements import ColumnElement

from newshelf.errors import InvalidField
from newshelf.store import schema
from newshelf.store.database import Checkpoints, Database, migrate
from newshelf.store.group_commit import AsyncConnection
from newshelf.store.items import ItemRepository
from newshelf.store.quarantine import Quarantine
from newshelf.store.records import VARIANTS, Exposure, FeedbackOutcome, StoredFeedback
from newshelf.store.rollouts import Leases, RolloutRepository
from newshelf.store.rows import exposure, from_us, stored_feedback, to_us
from newshelf.store.units import UnitRepository
from newshelf.store.write import (
    MOST_IDS,
    WriteBatch,
    exposures_statement,
    write_exposures,
    write_feedback,
    write_shadow,
)

JOIN_WINDOW = timedelta(days=1)
"""How long after an answer an event without a request id is joined to it."""
_ASYNC_CONNECTIONS = 4
_PAGE_ROWS = 5000


class EventStore:
    """One open event store; one object per process, for every thread.

    Each method is one transaction, but for the iterators, and raises ``Unavailable`` when the
    database does not answer; then nothing was changed or, if only the reply to the commit was lost,
    everything was.
    """

    def __init__(self, database: Database, window: timedelta) -> None:
        self.database = database
        self.rollouts = RolloutRepository(database)
        self.leases = Leases(database)
        self.units = UnitRepository(database)
        self.items = ItemRepository(database)
        self.quarantine = Quarantine(database)
        self._window_us = window // timedelta(microseconds=1)
        path = database.sqlite_file
        self._checkpoints = None if path is None else Checkpoints(path)

    @classmethod
    def open(cls, url: str, *, window: timedelta = JOIN_WINDOW) -> Self:
        """Open a database and migrate it to the current schema, or raise ``SettingsError``."""
        store = cls.connect(url, window=window)
        try:
            migrate(store.database)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def connect(cls, url: str, *, window: timedelta = JOIN_WINDOW) -> Self:
        """Open a database with the current schema, which may be unavailable now."""
        return cls(Database(url), window)

    def close(self) -> None:
        """Close all connections."""
        if self._checkpoints is not None:
            self._checkpoints.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def async_connections(self) -> list[AsyncConnection]:
        """Return connections for an event loop, which closes them; none to SQLite."""
        if self.database.sqlite_file:
            return []
        return [AsyncConnection(self.database, self.units) for _ in range(_ASYNC_CONNECTIONS)]

    def write(self, batch: WriteBatch) -> list[FeedbackOutcome]:
        """Store answers, then feedback; return each event's outcome, ``erased`` for erased units.

        Answers are stored once by request id, events once by event id. An event is joined to the
        answer it names, or to its unit's last exposure of the product within the window. Answers
        and feedback are two transactions; after an error, writing the batch again is safe. A value
        that the database cannot hold raises ``InvalidField``.
        """
        named = {row.unit for row in batch.exposures} | {row.unit for row in batch.feedback}
        erased = self.units.erased(named)
        if not erased:
            return self._write(batch)
        kept = WriteBatch(
            exposures=[row for row in batch.exposures if row.unit not in erased],
            feedback=[row for row in batch.feedback if row.unit not in erased],
            shadow=batch.shadow,
        )
        outcomes = iter(self._write(kept))
        return ["erased" if row.unit in erased else next(outcomes) for row in batch.feedback]

    def _write(self, batch: WriteBatch) -> list[FeedbackOutcome]:
        try:
            if batch.is_one_statement:
                statement = exposures_statement(self.database.dialect, batch.exposures)
                self.database.execute_once(*statement)
                return []
            if batch.exposures or batch.shadow:
                with self.database.writing() as connection:
                    write_exposures(connection, batch.exposures)
                    write_shadow(connection, batch.shadow)
            return write_feedback(self.database, batch.feedback, self._window_us)
        except (StatementError, UnicodeError, OverflowError) as error:
            cause = error.orig if isinstance(error, StatementError) else error
            raise InvalidField(f"the event store cannot hold a value: {cause}") from error

    def exposures(
        self, rollout: str | None = None, *, since: datetime | None = None, every: int = 1
    ) -> Iterator[Exposure]:
        """Yield all answers, or those of one rollout, in the order they were stored.

        ``since`` leaves out older ones; ``every`` yields a sample, one of that number.
        """
        return map(exposure, self._rows(schema.exposures, rollout, since, every))

    def count_answers(self, since: datetime) -> int:
        """Return the number of answers since a moment."""
        query = select(func.count()).where(schema.exposures.c.at_us >= to_us(since))
        with self.database.reading() as connection:
            return connection.scalar(query) or 0

    def answers(self, request_ids: Sequence[str]) -> Iterator[Exposure]:
        """Yield those of the answers that are stored, in any order."""
        for start in range(0, len(request_ids), MOST_IDS):
            named = schema.exposures.c.request_id.in_(request_ids[start : start + MOST_IDS])
            with self.database.reading() as connection:
                rows = connection.execute(select(schema.exposures).where(named)).all()
            yield from map(exposure, rows)

    def feedback(
        self, rollout: str | None = None, *, since: datetime | None = None
    ) -> Iterator[StoredFeedback]:
        """Yield all events since a moment, or those of one rollout, in the order of storing."""
        return map(stored_feedback, self._rows(schema.feedback, rollout, since))

    def last_answer_at(self, rollout: str) -> datetime | None:
        """Return the time of a rollout's last answer; None before its first."""
        answer = schema.exposures.c
        last = select(func.max(answer.at_us)).where(answer.rollout == rollout)
        with self.database.reading() as connection:
            # By variant, as the index is; over all variants it would scan every answer.
            times = [
                connection.scalar(last.where(answer.variant == variant)) for variant in VARIANTS
            ]
        return max((from_us(at_us) for at_us in times if at_us is not None), default=None)

    def _rows(
        self, table: Table, rollout: str | None, since: datetime | None = None, every: int = 1
    ) -> Iterator[Any]:
        """Yield rows by page, so that no transaction stays open in between."""
        last = 0
        only: list[ColumnElement[bool]] = [] if rollout is None else [table.c.rollout == rollout]
        only += [] if since is None else [table.c.at_us >= to_us(since)]
        only += [] if every == 1 else [table.c.id % every == 0]
        while True:
            query = select(table).where(table.c.id > last, *only).order_by(table.c.id)
            with self.database.reading() as connection:
                rows = connection.execute(query.limit(_PAGE_ROWS)).all()
            yield from rows
            if len(rows) < _PAGE_ROWS:
                return
            last = rows[-1].id
