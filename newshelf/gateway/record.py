"""The record: the event store, and while that is away a spool on this machine.

A recorder's method returns when what it was given survives the end of this process.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import orjson

from newshelf.errors import (
    Conflict,
    ErasedUnit,
    InvalidField,
    RequestError,
    Unavailable,
    UnknownRequest,
)
from newshelf.gateway.context import end_task
from newshelf.gateway.observability import GatewayMetrics
from newshelf.gateway.schemas import Invalid
from newshelf.gateway.upstream import Reply
from newshelf.server.program import GatewayPlan
from newshelf.store.group_commit import GroupCommit
from newshelf.store.records import Exposure, Feedback, FeedbackOutcome, ShadowAnswer
from newshelf.store.spool import Spool
from newshelf.store.store import EventStore
from newshelf.store.units import Interaction

_LOG = logging.getLogger(__name__)
_EACH_S = 1.0
_PROBE = "gateway/probe"
_PROBE_BYTES = 4096
_WAIT_S, _WAIT_WITH_SPOOL_S = 2.0, 1.0
"""How long an answer waits for the event store."""
_Kept = TypeVar("_Kept")


@dataclass(eq=False)
class Record:
    """A circuit breaker around the event store.

    An answer that waited in vain opens it: from then on nothing waits for the store, and all goes
    to the spool. Once a second the store is tried with a row of its own; when it takes that, the
    breaker closes and the spool is replayed. Feedback follows the answers that it may name: it is
    spooled as long as the spool, which other processes write to as well, holds any.
    """

    store: EventStore
    commits: GroupCommit
    spool: Spool | None = None
    spooling: GroupCommit | None = None
    away: str | None = None
    """Why nothing is written to the event store; None while it is."""
    refused: str | None = None
    """Why nothing can be recorded at all; None while the store or the spool take it."""

    async def exposure(self, exposure: Exposure) -> None:
        """Keep one answer; raise ``Unavailable`` if that is impossible, as the others do."""
        await self._keep(lambda to: to.exposure(exposure), behind=False)

    async def feedback(self, feedback: Sequence[Feedback]) -> list[FeedbackOutcome]:
        """Keep events, and say of each what became of it."""
        return await self._keep(lambda to: to.feedback(feedback), behind=self._holds_answers())

    async def shadow(self, answer: ShadowAnswer) -> None:
        """Keep what a shadowed model answered."""
        await self._keep(lambda to: to.shadow(answer), behind=False)

    async def shown(self, request_ids: Sequence[str]) -> list[str]:
        """Return the products of these answers; ``UnknownRequest`` if one is not stored."""
        if self.away is not None:
            raise Unavailable(f"earlier answers cannot be read: {self.away}")
        answers = await asyncio.to_thread(lambda: list(self.store.answers(request_ids)))
        if len(answers) < len(request_ids):
            if self._holds_answers():
                raise Unavailable("an earlier answer waits in the spool; try again")
            raise UnknownRequest("an earlier answer is not in the event store")
        return [item.item_id for answer in answers for item in answer.items]

    async def history(self, unit: str, limit: int) -> list[Interaction]:
        """Return a unit's last interactions, the newest first."""
        if self.away is not None:
            raise Unavailable(f"histories cannot be read: {self.away}")
        return await self.store.units.read_history(unit, limit)

    async def _keep(
        self, write: Callable[[GroupCommit], Awaitable[_Kept]], *, behind: bool
    ) -> _Kept:
        if self.away is None and not behind:
            try:
                return await write(self.commits)
            except Unavailable as error:
                self._open(error.message)
        if self.spooling is None:
            self.refused = self.away
            raise Unavailable(f"nothing can be recorded: {self.away}")
        try:
            kept = await write(self.spooling)
        except Unavailable as error:
            self.refused = f"{self.away or 'answers are replayed'}; {error.message}"
            raise Unavailable(f"nothing can be recorded: {self.refused}") from error
        self.refused = None
        return kept

    def _holds_answers(self) -> bool:
        try:
            return self.spool is not None and self.spool.holds("exposures")
        except Unavailable:
            # The store alone has to do, and says of events what it knows.
            return False

    def _open(self, reason: str) -> None:
        if self.away is None:
            where = "answers are spooled" if self.spool else "nothing is recorded"
            _LOG.error("the event store is left alone, and %s: %s", where, reason)
        self.away = reason

    async def tend(self) -> None:
        """Once a second, try a store that is away, read who was erased, and replay the spool."""
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
            if self.refused is not None and self.spool is not None:
                with contextlib.suppress(Unavailable):
                    self.spool.probe()
                    self.refused = None
            # Random: PostgreSQL would compress anything else to nothing.
            holder = os.urandom(_PROBE_BYTES).hex()
            self.store.leases.acquire(_PROBE, holder, 0)
            self.store.leases.release(_PROBE, holder)
            _LOG.warning("the event store takes rows again")
            self.away = None
        self.refused = None
        # For the event loop, which must not wait for the store.
        self.store.units.erased((), max_age_s=0)
        while self.spool is not None and self.spool.holds():
            if not self.spool.replay(self.store.write):
                return


def spool_of(plan: GatewayPlan) -> Spool | None:
    """The spool of a gateway, where it has one."""
    if plan.spool is None or not plan.spool_max_bytes:
        return None
    return Spool(plan.spool, plan.spool_max_bytes)


@asynccontextmanager
async def open_record(store: EventStore, spool: Spool | None) -> AsyncIterator[Record]:
    """Open the gateway's recorder; close it at the end."""
    wait_s = _WAIT_S if spool is None else _WAIT_WITH_SPOOL_S
    commits = GroupCommit(store, max_wait_s=wait_s, connections=store.async_connections())
    spooling = None if spool is None else GroupCommit(spool, retries=False)
    record = Record(store, commits, spool, spooling)
    tending = asyncio.create_task(record.tend())
    try:
        yield record
    finally:
        await end_task(tending)
        await commits.close()
        if spooling is not None:
            await spooling.close()


_REFUSED: dict[FeedbackOutcome, tuple[type[RequestError], str, str]] = {
    "conflict": (
        Conflict,
        "event_id",
        "another event has this id: its product, type, value or answer differs; "
        "give each line of an order an id of its own",
    ),
    "unknown_request": (UnknownRequest, "request_id", "no answer has this request_id"),
    "unknown_item": (
        UnknownRequest,
        "item_id",
        "the answer with this request_id did not show this product",
    ),
    "before_answer": (
        InvalidField,
        "at",
        "this moment is more than a day before the answer with this request_id",
    ),
    "erased": (ErasedUnit, "unit", "everything about this unit has been erased"),
}
"""Error, field and reason of the outcomes that are the sender's mistake; the event is not kept."""


async def take_feedback(
    events: Sequence[Feedback | Invalid], recorder: Record, metrics: GatewayMetrics
) -> Reply:
    """Keep events, and answer what became of each, or raise the first error if none is kept."""
    valid = [event for event in events if isinstance(event, Feedback)]
    outcomes = iter(await recorder.feedback(valid) if valid else [])
    results: list[dict[str, str | None]] = []
    errors: list[RequestError] = []
    for index, event in enumerate(events):
        error: RequestError | None = None
        if isinstance(event, Invalid):
            event_id, outcome, error = event.id, "invalid", event.error
        else:
            event_id, outcome = event.event_id, next(outcomes)
            if outcome in _REFUSED:
                kind, field, message = _REFUSED[outcome]
                path = f"events[{index}].{field}" if len(events) > 1 else field
                error = kind(message, field=path)
        metrics.feedback.labels(outcome).inc()
        results.append({"event_id": event_id, "outcome": outcome})
        if error is not None:
            errors.append(error)
            results[-1] |= error.body()
    if len(errors) == len(events):
        raise errors[0]
    accepted = len(events) - len(errors)
    return Reply(200, "application/json", orjson.dumps({"accepted": accepted, "results": results}))
