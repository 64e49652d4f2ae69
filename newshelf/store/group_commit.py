"""Group commit: rows that arrive during one commit share the next.

There is no timer: a lone row is committed at once, and a busier gateway forms larger groups.
A thread commits the groups. To PostgreSQL answers also go by a few connections of the event loop:
a writing thread would wait for the GIL after each step of the driver and for the disk at each
commit, while PostgreSQL commits parallel connections together.
"""

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

import psycopg

from newshelf.errors import Unavailable
from newshelf.store.database import Database
from newshelf.store.records import Exposure, Feedback, FeedbackOutcome, ShadowAnswer
from newshelf.store.schema import MOST_ROWS
from newshelf.store.units import UnitRepository
from newshelf.store.write import WriteBatch, exposures_statement

_LOG = logging.getLogger(__name__)


class AsyncConnection:
    """A connection to PostgreSQL, opened when needed; for one task at a time."""

    def __init__(self, database: Database, units: UnitRepository) -> None:
        self._database = database
        self._units = units
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def write(self, answers: Sequence[Exposure]) -> bool:
        """Try once to store at most ``MOST_ROWS`` answers, all or none.

        After False they may be stored too, if only the reply to the commit was lost: storing them
        again is safe.
        """
        # A thread reads the tombstones: the event loop must not wait.
        erased = self._units.erased((one.unit for one in answers), max_age_s=math.inf)
        answers = [one for one in answers if one.unit not in erased]
        if not answers:
            return True
        try:
            statement = exposures_statement(self._database.dialect, answers)
            if self._connection is None:
                self._connection = await self._database.connect_async()
            await self._connection.execute(*statement)
        except Exception as error:
            _LOG.info("%d answers go to the writer thread: %s", len(answers), error)
            # Its state is unknown, so the next write opens a new one.
            await self.close()
            return False
        return True

    async def close(self) -> None:
        """Close the connection until the next write."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_MOST_EVENTS = 16
"""Of one commit, which delays the answers that arrive meanwhile."""


class Store(Protocol):
    """Target of the commits: an ``EventStore`` or a ``Spool``."""

    def write(self, batch: WriteBatch) -> list[FeedbackOutcome]:
        """See ``EventStore.write``."""


@dataclass(eq=False)
class _Waiting:
    batch: WriteBatch
    future: "asyncio.Future[list[FeedbackOutcome]]"
    expires_s: float
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class GroupCommit:
    """Writes rows for an event loop; one per process.

    Answers go by an idle connection, if there are connections; the thread writes the rest and what
    a connection could not store. A call returns when its rows are committed. While the database
    does not answer, the thread retries; a caller that waits too long gets ``Unavailable``, and its
    rows are dropped (if only the reply was lost, they are stored: sending them again is safe).
    """

    store: Store
    max_rows: int = 1000
    """Callers that share a commit."""
    max_waiting: int = 20_000
    max_wait_s: float = 2.0
    connections: Sequence[AsyncConnection] = ()
    retries: bool = True

    def __post_init__(self) -> None:
        """Start the thread, in a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        """For the thread: answers and shadow answers."""
        self._feedback: deque[_Waiting] = deque()
        """For the thread, after the answers."""
        self._answers: deque[_Waiting] = deque()
        """For the connections."""
        self._idle = list(self.connections)
        self._busy: set[asyncio.Task[None]] = set()
        self._work = threading.Event()
        self._closing = self._closed = False
        self._failed: str | None = None
        """Reason of the last failure."""
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    async def exposure(self, exposure: Exposure) -> None:
        """Store one answer; ``InvalidField`` or, when it takes too long, ``Unavailable``."""
        await self._enqueue(WriteBatch(exposures=(exposure,)))

    async def feedback(self, feedback: Sequence[Feedback]) -> list[FeedbackOutcome]:
        """Store events, a few per commit; raises as ``exposure`` does, and some may be stored."""
        outcomes: list[FeedbackOutcome] = []
        for start in range(0, len(feedback), _MOST_EVENTS):
            part = tuple(feedback[start : start + _MOST_EVENTS])
            outcomes += await self._enqueue(WriteBatch(feedback=part))
        return outcomes

    async def shadow(self, answer: ShadowAnswer) -> None:
        """Store a shadow answer; raises as ``exposure`` does."""
        await self._enqueue(WriteBatch(shadow=(answer,)))

    async def close(self) -> None:
        """Write what waits and end the thread. Later calls get ``Unavailable``."""
        self._closing = True
        await asyncio.gather(*self._busy)
        for connection in self.connections:
            await connection.close()
        self._closed = True
        self._work.set()
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, batch: WriteBatch) -> "asyncio.Future[list[FeedbackOutcome]]":
        waits = len(self._queue) + len(self._feedback) + len(self._answers)
        if self._closing or waits >= self.max_waiting:
            reason = "is being closed" if self._closing else "has too many rows to write"
            raise Unavailable(f"the event store {reason}")
        waiting = _Waiting(batch, self._loop.create_future(), monotonic() + self.max_wait_s)
        waiting.timer = self._loop.call_later(self.max_wait_s, self._expire, waiting)
        if self.connections and batch.is_one_statement:
            self._answers.append(waiting)
            self._start_connection()
        elif batch.feedback:
            self._feedback.append(waiting)
            self._work.set()
        else:
            self._to_thread([waiting])
        return waiting.future

    def _start_connection(self) -> None:
        if self._idle:
            task = self._loop.create_task(self._drive(self._idle.pop()))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def _drive(self, connection: AsyncConnection) -> None:
        """Store answers by one connection until none wait."""
        try:
            while taken := _take(self._answers, MOST_ROWS):
                group = _in_time(taken)
                if not group or await connection.write(_merge(group).exposures):
                    _resolve(group, [])
                else:
                    self._to_thread(group)
        finally:
            self._idle.append(connection)

    def _to_thread(self, group: Sequence[_Waiting]) -> None:
        self._queue.extend(group)
        self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            while self._queue or self._feedback:
                self._commit(_take(self._queue, self.max_rows))
                self._commit(_take_events(self._feedback))
            if self._closed:
                return

    def _commit(self, group: list[_Waiting]) -> None:
        pause_s = _FIRST_PAUSE_S
        while group := _in_time(group):
            try:
                outcomes = self.store.write(_merge(group))
                self._loop.call_soon_threadsafe(_resolve, group, outcomes)
                self._failed = None
            except Unavailable as error:
                self._failed = error.message
                if not self.retries:
                    for one in group:
                        self._loop.call_soon_threadsafe(_fail, one, error)
                    return
                _LOG.warning("%d rows wait: %s", len(group), error)
                threading.Event().wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception as error:
                self._divide(group, error)
                return
            else:
                return

    def _divide(self, group: list[_Waiting], error: Exception) -> None:
        """Write both halves, so that only the caller of a bad row gets the error."""
        if len(group) == 1:
            self._loop.call_soon_threadsafe(_fail, group[0], error)
            return
        middle = len(group) // 2
        self._commit(group[:middle])
        self._commit(group[middle:])

    def _expire(self, one: _Waiting) -> None:
        reason = self._failed or "the event store did not answer in time: try again"
        _fail(one, Unavailable(reason))


def _take(queue: deque[_Waiting], most: int) -> list[_Waiting]:
    return [queue.popleft() for _ in range(min(len(queue), most))]


def _take_events(queue: deque[_Waiting]) -> list[_Waiting]:
    taken: list[_Waiting] = []
    events = 0
    while queue and (events := events + len(queue[0].batch.feedback)) <= _MOST_EVENTS:
        taken.append(queue.popleft())
    return taken


def _in_time(group: Sequence[_Waiting]) -> list[_Waiting]:
    return [one for one in group if monotonic() < one.expires_s]


def _merge(group: Sequence[_Waiting]) -> WriteBatch:
    return WriteBatch(
        exposures=[row for one in group for row in one.batch.exposures],
        feedback=[row for one in group for row in one.batch.feedback],
        shadow=[row for one in group for row in one.batch.shadow],
    )


def _resolve(group: Sequence[_Waiting], outcomes: Sequence[FeedbackOutcome]) -> None:
    start = 0
    for one in group:
        end = start + len(one.batch.feedback)
        if not one.future.done():
            one.future.set_result(list(outcomes[start:end]))
        _stop(one)
        start = end


def _fail(one: _Waiting, error: Exception) -> None:
    if not one.future.done():
        one.future.set_exception(error)
    _stop(one)


def _stop(one: _Waiting) -> None:
    if one.timer is not None:
        one.timer.cancel()
