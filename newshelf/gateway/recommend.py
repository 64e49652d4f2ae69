"""Answers a request for recommendations: by the unit's model, or else by what is popular."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from newshelf.errors import DeadlineExceeded, NewshelfError, Unavailable
from newshelf.gateway.call import Call
from newshelf.gateway.deadline import Deadline
from newshelf.gateway.exposures import exposure_of
from newshelf.gateway.fallback import Fallback
from newshelf.gateway.http1 import Reply
from newshelf.gateway.interleave import interleaved
from newshelf.gateway.metrics import Metrics
from newshelf.gateway.models import Models
from newshelf.gateway.parse import Asked
from newshelf.gateway.ports import ExposureRecorder
from newshelf.gateway.routing import Routed, Router
from newshelf.gateway.shadow import Shadow
from newshelf.gateway.shown import Shown, read_shown, shown_without_model
from newshelf.gateway.tracing import Spans
from newshelf.rollout.records import Exposure
from newshelf.validated import problems

__all__ = ["Recommender"]

_OK = 200
_RESERVE_SHARE, _RESERVE_MAX_S = 0.1, 0.05
"""Of the time that there is, kept back from the model for the fallback and the record."""


@dataclass(frozen=True)
class Recommender:
    """One per process."""

    models: Models
    router: Router
    fallback: Fallback
    recorder: ExposureRecorder
    shadow: Shadow
    metrics: Metrics
    spans: Spans
    record_required: bool
    """Whether an answer that could not be recorded is refused."""

    async def answer(self, asked: Asked, call: Call) -> Reply:
        """Answer, record, and only then return.

        Args:
            asked: the request.
            call: its way through the gateway; what is to be told of it is noted there.

        Returns:
            200, or the model's 4xx: the client's to mend.

        Raises:
            DeadlineExceeded: nobody waits any more.
            Unavailable: the answer could not be recorded.
        """
        routed = self.router.route(asked.unit)
        call.version = routed.assigned.version
        found = await self._find(asked, routed, call)
        if isinstance(found, Reply):
            return found
        shown, exposure = found
        call.source = "fallback" if shown.fallback else "model"
        await self._record(exposure)
        self.shadow.copy(asked, routed, shown, call)
        return Reply(_OK, "application/json", _body(shown, call))

    async def _find(
        self, asked: Asked, routed: Routed, call: Call
    ) -> tuple[Shown, Exposure] | Reply:
        """What to show and what to write down of it; the model's 4xx otherwise."""
        try:
            shown = await self._by_model(asked, routed, call)
            if isinstance(shown, Reply):
                return shown
            return shown, _recordable(asked, routed, shown, call)
        except Unavailable as error:
            if call.deadline.left_s() <= 0:
                raise DeadlineExceeded("there was no answer before the deadline") from error
            call.reason = error.message
            self.metrics.fallback(error.code)
        items = self.fallback.recommend(asked.request)
        shown = shown_without_model(items, routed.assigned.version)
        return shown, exposure_of(asked.unit, routed, shown, call)

    async def _by_model(self, asked: Asked, routed: Routed, call: Call) -> Shown | Reply:
        """What the unit's model shows; both models, where they are interleaved."""
        versions = [routed.assigned.version]
        if routed.assigned.variant == "interleaved" and routed.split is not None:
            versions = [routed.split.control, routed.split.challenger]
        reserve_s = min(_RESERVE_MAX_S, _RESERVE_SHARE * call.deadline.left_s())
        deadline = call.deadline.earlier(reserve_s)
        with self.spans.span("model"), self.metrics.model_seconds.time():
            replies = await self._ask(asked, versions, deadline)
        for reply in replies:
            if reply.status != _OK:
                return reply
        first, *second = [read_shown(reply.body) for reply in replies]
        if not second:
            return first
        return interleaved(first, second[0], asked.request.k, call.request_id)

    async def _ask(
        self, asked: Asked, versions: Sequence[str], deadline: Deadline
    ) -> Sequence[Reply]:
        if len(versions) == 1:
            return [await self.models.ask("recommender", versions[0], asked.body, deadline)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.models.ask("recommender", version, asked.body, deadline))
                    for version in versions
                ]
        except* NewshelfError as failed:
            # One of them is enough to say why; the other has been cancelled.
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _record(self, exposure: Exposure) -> None:
        try:
            with self.spans.span("record"), self.metrics.record_seconds.time():
                await self.recorder.exposure(exposure)
        except Unavailable:
            self.metrics.unrecorded.inc()
            if self.record_required:
                raise


def _recordable(asked: Asked, routed: Routed, shown: Shown, call: Call) -> Exposure:
    try:
        return exposure_of(asked.unit, routed, shown, call)
    except ValidationError as error:
        raise Unavailable(f"the model's answer is not whole: {problems(error)}") from None


def _body(shown: Shown, call: Call) -> bytes:
    answer: dict[str, object] = {
        "items": shown.items,
        "source": call.source,
        "request_id": call.request_id,
    }
    if shown.ignored:
        answer["ignored"] = shown.ignored
    return orjson.dumps(answer)
