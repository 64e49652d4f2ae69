"""The record: the event store, and while that is away a spool on this machine."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from newshelf.errors import Unavailable
from newshelf.gateway.ports import Recorder
from newshelf.rollout.records import Exposure, Feedback
from newshelf.rollout.store import EventStore, GroupCommit, Outcome, ShadowAnswer, Spool
from newshelf.server.gateway_plan import GatewayPlan

__all__ = ["Record", "open_record", "spool_of"]

_LOG = logging.getLogger(__name__)
_EACH_S = 1.0
_PROBE = "gateway/probe"
_PROBE_BYTES = 4096
_WAIT_S, _WAIT_WITH_SPOOL_S = 2.0, 1.0
"""How long an answer waits for the event store."""
_Kept = TypeVar("_Kept")


class Record:
    """A circuit breaker around the event store.

    An answer that waited in vain opens it: from then on nothing waits for the store, and all goes
    to the spool. Once a second the store is tried with a row of its own; when it takes that, the
    breaker closes and the spool is replayed. Feedback follows the answers that it may name: it is
    spooled as long as the spool, which other processes write to as well, holds any.

    Args:
        store: the event store.
        commits: write to it.
        spool: None to do without.
        spooling: writes to the spool.
    """

    def __init__(
        self,
        store: EventStore,
        commits: Recorder,
        spool: Spool | None = None,
        spooling: Recorder | None = None,
    ) -> None:
        self._store = store
        self._commits = commits
        self._spool = spool
        self._spooling = spooling
        self.away: str | None = None
        """Why nothing is written to the event store; None while it is."""
        self.refused: str | None = None
        """Why nothing can be recorded at all; None while the store or the spool take it."""

    async def exposure(self, exposure: Exposure) -> None:
        """See ``ports.ExposureRecorder``."""
        await self._keep(lambda to: to.exposure(exposure), behind=False)

    async def feedback(self, feedback: Sequence[Feedback]) -> list[Outcome]:
        """See ``ports.FeedbackRecorder``."""
        return await self._keep(lambda to: to.feedback(feedback), behind=self._holds_answers())

    async def shadow(self, answer: ShadowAnswer) -> None:
        """See ``ports.ShadowRecorder``."""
        await self._keep(lambda to: to.shadow(answer), behind=False)

    async def _keep(self, write: Callable[[Recorder], Awaitable[_Kept]], *, behind: bool) -> _Kept:
        if self.away is None and not behind:
            try:
                return await write(self._commits)
            except Unavailable as error:
                self._open(error.message)
        if self._spooling is None:
            self.refused = self.away
            raise Unavailable(f"nothing can be recorded: {self.away}")
        try:
            kept = await write(self._spooling)
        except Unavailable as error:
            self.refused = f"{self.away or 'answers are replayed'}; {error.message}"
            raise Unavailable(f"nothing can be recorded: {self.refused}") from error
        self.refused = None
        return kept

    def _holds_answers(self) -> bool:
        try:
            return self._spool is not None and self._spool.holds("exposures")
        except Unavailable:
            # The store alone has to do, and says of events what it knows.
            return False

    def _open(self, reason: str) -> None:
        if self.away is None:
            where = "answers are spooled" if self._spool else "nothing is recorded"
            _LOG.error("the event store is left alone, and %s: %s", where, reason)
        self.away = reason

    async def tend(self) -> None:
        """Try a store that is away, and replay the spool, once a second."""
        while True:
            await asyncio.sleep(_EACH_S)
            try:
                await asyncio.to_thread(self._try_again)
            except Unavailable as error:
                if self.away is not None:
                    self.away = error.message
            except Exception:
                _LOG.exception("the record could not be looked after")

    def _try_again(self) -> None:
        if self.away is not None:
            if self.refused is not None and self._spool is not None:
                with contextlib.suppress(Unavailable):
                    self._spool.probe()
                    self.refused = None
            # Random: PostgreSQL would compress anything else to nothing.
            holder = os.urandom(_PROBE_BYTES).hex()
            self._store.acquire_lease(_PROBE, holder, 0)
            self._store.release_lease(_PROBE, holder)
            _LOG.warning("the event store takes rows again")
            self.away = None
        self.refused = None
        while self._spool is not None and self._spool.holds():
            if not self._spool.replay(self._store.write):
                return


def spool_of(plan: GatewayPlan) -> Spool | None:
    """The spool of a gateway, where it has one."""
    if plan.spool is None or not plan.spool_max_bytes:
        return None
    return Spool(plan.spool, plan.spool_max_bytes)


@asynccontextmanager
async def open_record(store: EventStore, spool: Spool | None) -> AsyncIterator[Record]:
    """What the gateway records with, tended until the end."""
    wait_s = _WAIT_S if spool is None else _WAIT_WITH_SPOOL_S
    commits = GroupCommit(store, max_wait_s=wait_s, lanes=store.lanes())
    spooling = None if spool is None else GroupCommit(spool, retries=False)
    record = Record(store, commits, spool, spooling)
    tending = asyncio.create_task(record.tend())
    try:
        yield record
    finally:
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending
        await commits.close()
        if spooling is not None:
            await spooling.close()
