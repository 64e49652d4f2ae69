"""The event store: exposures, feedback, shadow answers and rollouts in one database; pruning."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import sleep
from typing import Any, Self

from sqlalchemy import Table, delete, func, select
from sqlalchemy.exc import StatementError
from sqlalchemy.sql.elements import ColumnElement

from newshelf.errors import InvalidField
from newshelf.store import schema
from newshelf.store.database import Checkpoints, Database, migrate
from newshelf.store.group_commit import AsyncConnection
from newshelf.store.items import ItemRepository
from newshelf.store.records import VARIANTS, Exposure, FeedbackOutcome, StoredFeedback
from newshelf.store.rollouts import Hosts, Leases, RolloutRepository
from newshelf.store.schema import (
    exposure,
    exposures,
    feedback,
    from_us,
    shadow_answers,
    stored_feedback,
    to_us,
)
from newshelf.store.units import UnitRepository
from newshelf.store.write import (
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
        self.hosts = Hosts(database)
        self.units = UnitRepository(database)
        self.items = ItemRepository(database)
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
        for part in schema.parts(request_ids):
            named = schema.exposures.c.request_id.in_(part)
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


_ROWS = 1000
"""Rows of one transaction, during which no gateway can write to SQLite."""
_PAUSE_S = 0.02
_DAY_US = 86_400_000_000
_SAMPLES = 1000
_MOST_GAP_US = 7 * _DAY_US
"""Largest gap between two samples: an open shop has an answer in every week."""
_LEAST_REACH = 0.1
"""Least age of the oldest row that stays, as a share of the retention time."""


@dataclass(frozen=True)
class PruneCounts:
    """Number of removed rows by table."""

    exposures: int
    feedback: int
    shadow_answers: int


def clock_doubt(database: Database, before: datetime, now: datetime) -> str | None:
    """Return why the clock may have jumped ahead, so that pruning would remove recent rows; or
    None.

    Answers are stored in the order in which they happen; the times of a thousand of them, evenly
    spaced, must lead up to ``now``.
    """
    answer, before_us, now_us = exposures.c, to_us(before), to_us(now)
    with database.reading() as connection:
        first, last = connection.execute(select(func.min(answer.id), func.max(answer.id))).one()
        if first is None:
            return None
        query = select(answer.at_us).order_by(answer.id).limit(1)
        found = [
            connection.scalar(query.where(answer.id >= number))
            for number in range(first, last + 1, max(1, (last - first) // _SAMPLES))
        ]
    # Rows that a wrong clock stamped are later than now and prove nothing.
    times = [at_us for at_us in found if at_us is not None and at_us <= now_us]
    stays = [at_us for at_us in times if at_us >= before_us]
    if len(stays) == len(times):
        return None
    if now_us - min(stays, default=now_us) < _LEAST_REACH * (now_us - before_us):
        newest = f"{from_us(max(times)):%Y-%m-%d %H:%M}"
        return f"next to nothing would stay, and the newest answer is of {newest} UTC"
    for earlier_us, later_us in pairwise(times):
        if len(times) >= _SAMPLES // 2 and later_us >= before_us:
            days = (later_us - earlier_us) / _DAY_US
            if later_us - earlier_us > _MOST_GAP_US:
                after = f"{from_us(earlier_us):%Y-%m-%d %H:%M}"
                return f"no answer was stored for {days:.0f} days after {after} UTC"
    return None


def prune(
    database: Database, before: datetime, on_removed: Callable[[int], None] = lambda _rows: None
) -> PruneCounts:
    """Remove answers and events before a moment, also while others write.

    An old row that was stored after newer ones may stay until the next call. Rows later than now
    were stamped by a wrong clock; they go with the rows stored after them. ``on_removed`` gets the
    number of rows of each transaction.
    """
    before_us, now_us = to_us(before), to_us(datetime.now(UTC))

    def remove(table: Table) -> int:
        removed = last = 0
        waiting: list[int] = []
        while True:
            # By id, which is roughly the order in time; there is no index of times.
            page = select(table.c.id, table.c.at_us).where(table.c.id > last)
            with database.reading() as connection:
                rows = connection.execute(page.order_by(table.c.id).limit(_ROWS)).all()
            old = [row.id for row in rows if row.at_us < before_us]
            ahead = [row.id for row in rows if row.at_us > now_us]
            if not old and not ahead:
                # A later call finds older rows that come later: events may be sent late.
                return removed
            waiting += ahead
            newest = old[-1] if old else 0
            old += [number for number in waiting if number < newest]
            waiting = [number for number in waiting if number > newest]
            for start in range(0, len(old), _ROWS):
                part = old[start : start + _ROWS]
                with database.writing() as connection:
                    connection.execute(delete(table).where(table.c.id.in_(part)))
                removed += len(part)
                on_removed(len(part))
                sleep(_PAUSE_S)
            last = rows[-1].id

    # Events first: an event must not outlive its answer.
    return PruneCounts(
        feedback=remove(feedback),
        shadow_answers=remove(shadow_answers),
        exposures=remove(exposures),
    )
