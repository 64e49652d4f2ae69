"""The event store: one object per process, for every thread."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from sqlalchemy.exc import StatementError

from newshelf.errors import InvalidField
from newshelf.store import rollouts
from newshelf.store import rollouts as lease
from newshelf.store.aggregates import (
    Observed,
    ShadowAnswer,
    observe,
    summarise_shadow,
    team_credits,
)
from newshelf.store.database import Checkpoints, Database, migrate
from newshelf.store.export import StoredFeedback, last_answer_at, read_exposures, read_feedback
from newshelf.store.group_commit import AsyncConnection
from newshelf.store.prune import Pruned, clock_doubt, prune
from newshelf.store.records import Exposure, Feedback, Floats, Outcome, TrafficSplit
from newshelf.store.rollouts import (
    JournalEntry,
    KeptLook,
    RolloutRow,
    add_look,
    last_look,
    read_looks,
)
from newshelf.store.rows import to_us
from newshelf.store.write import (
    WriteBatch,
    write_exposures,
    write_exposures_once,
    write_feedback,
    write_shadow,
)

JOIN_WINDOW = timedelta(days=1)
"""How long after an answer an event that names no request still belongs to it."""
_LANES = 4


class EventStore:
    """Exposures, feedback, and the rollouts' state.

    Every method is one transaction, and raises ``Unavailable`` when the database does not
    answer; then nothing was changed, or, if only the answer to the commit was lost, all of it.
    """

    def __init__(self, database: Database, window: timedelta) -> None:
        self._database = database
        self._window_us = window // timedelta(microseconds=1)
        path = database.sqlite_file
        self._checkpoints = None if path is None else Checkpoints(path)

    @classmethod
    def open(cls, url: str, *, window: timedelta = JOIN_WINDOW) -> Self:
        """Open a database and bring its schema up to date.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``.
            window: how long after an exposure an event without a request is joined to it.

        Raises:
            SettingsError: a URL that cannot be used, a server that does not answer, or a
                schema that is newer than this code.
        """
        store = cls.connect(url, window=window)
        try:
            migrate(store._database)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def connect(cls, url: str, *, window: timedelta = JOIN_WINDOW) -> Self:
        """The same of a database whose schema is up to date, and which may be away now.

        Raises:
            SettingsError: a URL that cannot be used.
        """
        return cls(Database(url), window)

    def close(self) -> None:
        """Close all connections."""
        if self._checkpoints is not None:
            self._checkpoints.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Records

    def lanes(self) -> list[AsyncConnection]:
        """Ways by which one event loop stores answers itself; it closes them.

        None into SQLite, where a commit takes place in the caller's thread.
        """
        return (
            []
            if self._database.sqlite_file
            else [AsyncConnection(self._database) for _ in range(_LANES)]
        )

    def write(self, writes: WriteBatch) -> list[Outcome]:
        """Store answers, then feedback. What is there already is left as it is.

        Each of the two is stored whole or not at all; after an error, writing all of it again
        is safe.

        Returns:
            What became of each event of the feedback.

        Raises:
            InvalidField: a value that the database cannot hold.
            Unavailable: the database does not answer.
        """
        try:
            if writes.is_one_statement:
                write_exposures_once(self._database, writes.exposures)
                return []
            if writes.exposures or writes.shadow:
                with self._database.writing() as connection:
                    write_exposures(connection, writes.exposures)
                    write_shadow(connection, writes.shadow)
            return write_feedback(self._database, writes.feedback, self._window_us)
        except (StatementError, UnicodeError, OverflowError) as error:
            cause = error.orig if isinstance(error, StatementError) else error
            raise InvalidField(f"the event store cannot hold a value: {cause}") from error

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Store answers, each once by its request id; errors as of ``write``."""
        self.write(WriteBatch(exposures=exposures))

    def add_feedback(self, feedback: Sequence[Feedback]) -> list[Outcome]:
        """Store events, each once by its event id; errors as of ``write``.

        An event is joined to the answer that it names, or to its unit's last exposure of the
        product within the window.

        Returns:
            What became of each.
        """
        return self.write(WriteBatch(feedback=feedback))

    def add_shadow(self, answers: Sequence[ShadowAnswer]) -> None:
        """Store what the challenger answered to copies; errors as of ``write``."""
        self.write(WriteBatch(shadow=answers))

    def shadow(self, name: str, *, since: datetime) -> tuple[dict[str, float], Floats]:
        """Sum up a rollout's shadow answers, as ``Observation.shadow`` says; and their latencies,
        or a sample of them.
        """
        with self._database.reading() as connection:
            return summarise_shadow(connection, name, since)

    def exposures(self, rollout: str | None = None) -> Iterator[Exposure]:
        """All answers, or those of one rollout, in the order in which they were stored."""
        return read_exposures(self._database, rollout)

    def feedback(self, rollout: str | None = None) -> Iterator[StoredFeedback]:
        """All events, or those of one rollout, in the order in which they were stored."""
        return read_feedback(self._database, rollout)

    def clock_doubt(self, before: datetime, now: datetime) -> str | None:
        """Why the clock may have jumped, so that pruning would remove young rows; see there."""
        return clock_doubt(self._database, to_us(before), to_us(now))

    def prune(
        self, before: datetime, on_removed: Callable[[int], None] = lambda _rows: None
    ) -> Pruned:
        """Remove answers and events of before a moment, in many small transactions.

        An old row that was stored after younger ones may stay until the next call.
        """
        return prune(self._database, to_us(before), to_us(datetime.now(UTC)), on_removed)

    def export_events(self, path: Path) -> int:
        """Write all feedback in the catalogue's events format.

        Args:
            path: ``.parquet``, ``.csv`` or ``.tsv``; written aside and renamed.

        Returns:
            The number of events.

        Raises:
            SettingsError: another suffix.
        """
        # pyarrow is large, and a gateway never exports.
        from newshelf.store.export import write_events  # noqa: PLC0415

        return write_events(self.feedback(), path)

    def observe(self, name: str, *, step_since: datetime, before_window_s: float) -> Observed:
        """Sum up a rollout, as ``UnitTotals`` and ``VariantHealth`` say.

        Args:
            name: the rollout.
            step_since: health is counted from this moment on, totals from the first exposure.
            before_window_s: of the covariates, in the time before the first exposure.
        """
        with self._database.reading() as connection:
            return observe(connection, name, step_since=step_since, before_window_s=before_window_s)

    def credits(self, name: str) -> Mapping[str, Floats]:
        """Clicks on a rollout's interleaved answers, as ``Observation.credits`` says."""
        with self._database.reading() as connection:
            return team_credits(connection, name)

    def last_answer_at(self, name: str) -> datetime | None:
        """When a rollout's split answered last; None before its first answer."""
        with self._database.reading() as connection:
            return last_answer_at(connection, name)

    # Rollouts

    def splits(self) -> list[TrafficSplit]:
        """Of the rollouts that are being served, oldest first."""
        with self._database.reading() as connection:
            return rollouts.read_splits(connection)

    def create_rollout(self, name: str, plan: str, state: str, split: TrafficSplit | None) -> None:
        """Write down a new rollout, at revision 1.

        Raises:
            SettingsError: there is one of this name, or the split is of another.
        """
        with self._database.writing() as connection:
            rollouts.create_rollout(connection, name, plan, state, split)

    def rollout(self, name: str) -> RolloutRow:
        """One rollout.

        Raises:
            SettingsError: there is none of this name.
        """
        with self._database.reading() as connection:
            return rollouts.read_rollout(connection, name)

    def rollouts(self) -> list[RolloutRow]:
        """All of them, oldest first."""
        with self._database.reading() as connection:
            return rollouts.read_rollouts(connection)

    def replace_state(
        self,
        name: str,
        revision: int,
        state: str,
        split: TrafficSplit | None,
        note: str,
        *,
        holder: str | None = None,
    ) -> bool:
        """Change state and split, and add a line to the journal, if nothing has changed since.

        Args:
            name: the rollout.
            revision: of the row that the change was decided on.
            state: the new one.
            split: the new one.
            note: why, in words.
            holder: only if this controller still holds the lease ``name``.

        Returns:
            False when the rollout has another revision, does not exist, or the lease is not
            ``holder``'s: nothing was changed, read again.

        Raises:
            SettingsError: the split is of another rollout.
        """
        with self._database.writing() as connection:
            return rollouts.replace_state(connection, name, revision, state, split, note, holder)

    def journal(self, name: str) -> list[JournalEntry]:
        """All changes of a rollout, oldest first.

        Raises:
            SettingsError: there is none of this name.
        """
        with self._database.reading() as connection:
            return rollouts.read_journal(connection, name)

    def add_look(self, name: str, look: str) -> None:
        """Keep what the controller saw of a rollout."""
        with self._database.writing() as connection:
            add_look(connection, name, look)

    def looks(self, name: str, *, most: int) -> list[KeptLook]:
        """What was seen of a rollout, oldest first; of more than ``most``, at equal distances."""
        with self._database.reading() as connection:
            return read_looks(connection, name, most)

    def last_look(self, name: str) -> KeptLook | None:
        """What was seen of a rollout last; None before the first look."""
        with self._database.reading() as connection:
            return last_look(connection, name)

    def acquire_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take, or prolong, a lease for ``ttl_s`` seconds by the database's clock.

        Args:
            name: of what only one may do, such as a rollout's name.
            holder: who asks; another one for each process.
            ttl_s: after it the lease is free, if it was not prolonged.

        Returns:
            False when another holds it.
        """
        with self._database.writing() as connection:
            return lease.acquire(connection, name, holder, ttl_s)

    def release_lease(self, name: str, holder: str) -> None:
        """Give a lease back; nothing happens when it is another's."""
        with self._database.writing() as connection:
            lease.release(connection, name, holder)
