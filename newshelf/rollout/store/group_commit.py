"""Many requests, few commits: rows that arrive while one commit is under way share the next.

No timer: a lone row is committed at once, and the busier the gateway, the larger the groups.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from newshelf.errors import Unavailable
from newshelf.rollout.records import Exposure, Feedback
from newshelf.rollout.store.outcome import Outcome
from newshelf.rollout.store.shadow import ShadowAnswer
from newshelf.rollout.store.store import Writes

__all__ = ["GroupCommit"]

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0


class Store(Protocol):
    """What is written to: an ``EventStore``."""

    def write(self, writes: Writes) -> list[Outcome]:
        """Store all of it, or nothing; see ``EventStore.write``."""


@dataclass(eq=False)
class _Waiting:
    """One caller, and what it wants to have written."""

    writes: Writes
    future: "asyncio.Future[list[Outcome]]"
    expires_s: float
    """By the monotonic clock."""
    timer: asyncio.TimerHandle | None = None


class GroupCommit:
    """The event loop's side of the store. One per process; its thread does all writing.

    A call returns when its rows are committed. While the database does not answer, the thread
    tries again and again; a caller that has waited for too long gets ``Unavailable``, and its
    rows are tried no more (they may be there, if only the answer to the commit was lost:
    sending them again is safe).
    """

    def __init__(
        self,
        store: Store,
        *,
        max_rows: int = 1000,
        max_waiting: int = 20_000,
        max_wait_s: float = 2.0,
    ) -> None:
        """Start the thread; to be called within a running event loop.

        Args:
            store: where to.
            max_rows: callers whose rows share one commit at most.
            max_waiting: callers that wait at once; more get ``Unavailable`` immediately.
            max_wait_s: how long a caller waits.
        """
        self._store = store
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._work = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    async def exposure(self, exposure: Exposure) -> None:
        """Store one answer.

        Raises:
            InvalidField: a value that the database cannot hold.
            Unavailable: the database did not answer in time, or too many wait.
        """
        await self._enqueue(Writes(exposures=(exposure,)))

    async def feedback(self, feedback: Sequence[Feedback]) -> list[Outcome]:
        """Store events; errors as of ``exposure``.

        Returns:
            What became of each. An event whose commit's answer was lost is told as a
            duplicate, of itself.
        """
        return await self._enqueue(Writes(feedback=tuple(feedback)))

    async def shadow(self, answer: ShadowAnswer) -> None:
        """Store what the challenger answered to a copy; errors as of ``exposure``."""
        await self._enqueue(Writes(shadow=(answer,)))

    async def close(self) -> None:
        """Write what waits, and end the thread. Calls after it get ``Unavailable``."""
        self._closing = True
        self._work.set()
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, writes: Writes) -> "asyncio.Future[list[Outcome]]":
        if self._closing or len(self._queue) >= self._max_waiting:
            reason = "is being closed" if self._closing else "has too many rows to write"
            raise Unavailable(f"the event store {reason}")
        waiting = _Waiting(writes, self._loop.create_future(), monotonic() + self._max_wait_s)
        waiting.timer = self._loop.call_later(self._max_wait_s, _give_up, waiting)
        self._queue.append(waiting)
        self._work.set()
        return waiting.future

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            while self._queue:
                self._commit(self._take())
            if self._closing and not self._queue:
                return

    def _take(self) -> list[_Waiting]:
        return [self._queue.popleft() for _ in range(min(len(self._queue), self._max_rows))]

    def _commit(self, group: list[_Waiting]) -> None:
        """Write a group, as often as it takes."""
        pause_s = _FIRST_PAUSE_S
        while group := [one for one in group if monotonic() < one.expires_s]:
            try:
                self._answer(group, self._store.write(_together(group)))
            except Unavailable as error:
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

    def _answer(self, group: list[_Waiting], outcomes: list[Outcome]) -> None:
        self._loop.call_soon_threadsafe(_tell, group, outcomes)


def _together(group: Sequence[_Waiting]) -> Writes:
    return Writes(
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


def _give_up(one: _Waiting) -> None:
    _fail(one, Unavailable("the event store did not answer in time: try again"))


def _stop(one: _Waiting) -> None:
    if one.timer is not None:
        one.timer.cancel()
