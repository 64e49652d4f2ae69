"""Many requests, few commits: rows that arrive while one commit is under way share the next.

No timer: a lone row is committed at once, and the busier the gateway, the larger the groups.
Where the database has lanes, answers take them, and the thread has what they could not store.

A connection of the event loop's own, on which answers are stored without a thread.

A thread that writes has to get Python's lock back after each step of the driver, from an event
loop that is busy with requests; and while PostgreSQL waits for the disk, the next answers wait
for that thread. A few lanes side by side wait for neither: PostgreSQL commits them together.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

import psycopg

from newshelf.errors import Unavailable
from newshelf.store.aggregates import ShadowAnswer
from newshelf.store.database import Database
from newshelf.store.records import Exposure, Feedback, Outcome
from newshelf.store.rows import MOST_ROWS
from newshelf.store.write import WriteBatch, exposures_statement

_LOG = logging.getLogger(__name__)


class AsyncConnection:
    """One connection to PostgreSQL, opened when it is needed; used by one task at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def write(self, answers: Sequence[Exposure]) -> bool:
        """Try once to store at most ``MOST_ROWS`` answers, all or none.

        Returns:
            Whether they are stored. If not, for whatever reason, they may be there nevertheless,
            when only the answer to the commit was lost: storing them again is safe.
        """
        try:
            statement = exposures_statement(self._database.dialect, answers)
            if self._connection is None:
                self._connection = await self._database.connect_async()
            await self._connection.execute(*statement)
        except Exception as error:
            _LOG.info("%d answers take the other way: %s", len(answers), error)
            # Whatever state it is in: the next one is new.
            await self.close()
            return False
        return True

    async def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_MOST_EVENTS = 16
"""Of one commit: the answers that come meanwhile wait for it."""


class Store(Protocol):
    """What is written to: an ``EventStore``, or a ``Spool``."""

    def write(self, writes: WriteBatch) -> list[Outcome]:
        """See ``EventStore.write``."""


@dataclass(eq=False)
class _Waiting:
    """One caller, and what it wants to have written."""

    writes: WriteBatch
    future: "asyncio.Future[list[Outcome]]"
    expires_s: float
    """By the monotonic clock."""
    timer: asyncio.TimerHandle | None = None


class GroupCommit:
    """The event loop's side of the store. One per process.

    Answers go by an idle lane, where there are lanes; its thread writes all else, and what a
    lane could not store. A call returns when its rows are committed. While the database does
    not answer, the thread tries again and again; a caller that has waited for too long gets
    ``Unavailable``, and its rows are tried no more (they may be there, if only the answer to
    the commit was lost: sending them again is safe).
    """

    def __init__(
        self,
        store: Store,
        *,
        max_rows: int = 1000,
        max_waiting: int = 20_000,
        max_wait_s: float = 2.0,
        lanes: Sequence[AsyncConnection] = (),
        retries: bool = True,
    ) -> None:
        """Start the thread; to be called within a running event loop.

        Args:
            store: where to.
            max_rows: callers whose rows share one commit at most.
            max_waiting: callers that wait at once; more get ``Unavailable`` immediately.
            max_wait_s: how long a caller waits.
            lanes: of the store; closed with this.
            retries: try again while the store is away, instead of failing at once.
        """
        self._store = store
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._retries = retries
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        """The thread's: answers, and copies of the shadow."""
        self._feedback: deque[_Waiting] = deque()
        """The thread's, after the answers."""
        self._answers: deque[_Waiting] = deque()
        """The lanes'."""
        self._lanes = lanes
        self._idle = list(lanes)
        self._busy: set[asyncio.Task[None]] = set()
        self._work = threading.Event()
        self._closing = self._closed = False
        self._failed: str | None = None
        """Why the last attempt failed."""
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    async def exposure(self, exposure: Exposure) -> None:
        """Store one answer.

        Raises:
            InvalidField: a value that the database cannot hold.
            Unavailable: the database did not answer in time, or too many wait.
        """
        await self._enqueue(WriteBatch(exposures=(exposure,)))

    async def feedback(self, feedback: Sequence[Feedback]) -> list[Outcome]:
        """Store events, a few at a time; errors as of ``exposure``, and then some may be stored.

        Returns:
            What became of each. An event whose commit's answer was lost is told as a
            duplicate, of itself.
        """
        outcomes: list[Outcome] = []
        for start in range(0, len(feedback), _MOST_EVENTS):
            part = tuple(feedback[start : start + _MOST_EVENTS])
            outcomes += await self._enqueue(WriteBatch(feedback=part))
        return outcomes

    async def shadow(self, answer: ShadowAnswer) -> None:
        """Store what the challenger answered to a copy; errors as of ``exposure``."""
        await self._enqueue(WriteBatch(shadow=(answer,)))

    async def close(self) -> None:
        """Write what waits, and end lanes and thread. Calls after it get ``Unavailable``."""
        self._closing = True
        await asyncio.gather(*self._busy)
        for lane in self._lanes:
            await lane.close()
        self._closed = True
        self._work.set()
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, writes: WriteBatch) -> "asyncio.Future[list[Outcome]]":
        waits = len(self._queue) + len(self._feedback) + len(self._answers)
        if self._closing or waits >= self._max_waiting:
            reason = "is being closed" if self._closing else "has too many rows to write"
            raise Unavailable(f"the event store {reason}")
        waiting = _Waiting(writes, self._loop.create_future(), monotonic() + self._max_wait_s)
        waiting.timer = self._loop.call_later(self._max_wait_s, self._give_up, waiting)
        if self._lanes and writes.is_one_statement:
            self._answers.append(waiting)
            self._start_lane()
        elif writes.feedback:
            self._feedback.append(waiting)
            self._work.set()
        else:
            self._to_thread([waiting])
        return waiting.future

    def _start_lane(self) -> None:
        if self._idle:
            task = self._loop.create_task(self._drive(self._idle.pop()))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def _drive(self, lane: AsyncConnection) -> None:
        """Store answers by a lane until none wait."""
        try:
            while taken := _take(self._answers, MOST_ROWS):
                group = _in_time(taken)
                if not group or await lane.write(_together(group).exposures):
                    _tell(group, [])
                else:
                    self._to_thread(group)
        finally:
            self._idle.append(lane)

    def _to_thread(self, group: Sequence[_Waiting]) -> None:
        self._queue.extend(group)
        self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            while self._queue or self._feedback:
                self._commit(_take(self._queue, self._max_rows))
                self._commit(_take_events(self._feedback))
            if self._closed:
                return

    def _commit(self, group: list[_Waiting]) -> None:
        """Write a group, as often as it takes."""
        pause_s = _FIRST_PAUSE_S
        while group := _in_time(group):
            try:
                self._answer(group, self._store.write(_together(group)))
                self._failed = None
            except Unavailable as error:
                self._failed = error.message
                if not self._retries:
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
        """Find the row that cannot be written, so that only its caller is told so."""
        if len(group) == 1:
            self._loop.call_soon_threadsafe(_fail, group[0], error)
            return
        middle = len(group) // 2
        self._commit(group[:middle])
        self._commit(group[middle:])

    def _give_up(self, one: _Waiting) -> None:
        said = self._failed or "the event store did not answer in time: try again"
        _fail(one, Unavailable(said))

    def _answer(self, group: list[_Waiting], outcomes: list[Outcome]) -> None:
        self._loop.call_soon_threadsafe(_tell, group, outcomes)


def _take(queue: deque[_Waiting], most: int) -> list[_Waiting]:
    return [queue.popleft() for _ in range(min(len(queue), most))]


def _take_events(queue: deque[_Waiting]) -> list[_Waiting]:
    taken: list[_Waiting] = []
    events = 0
    while queue and (events := events + len(queue[0].writes.feedback)) <= _MOST_EVENTS:
        taken.append(queue.popleft())
    return taken


def _in_time(group: Sequence[_Waiting]) -> list[_Waiting]:
    """Those whose callers still wait."""
    return [one for one in group if monotonic() < one.expires_s]


def _together(group: Sequence[_Waiting]) -> WriteBatch:
    return WriteBatch(
        exposures=[row for one in group for row in one.writes.exposures],
        feedback=[row for one in group for row in one.writes.feedback],
        shadow=[row for one in group for row in one.writes.shadow],
    )


def _tell(group: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
    start = 0
    for one in group:
        end = start + len(one.writes.feedback)
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
