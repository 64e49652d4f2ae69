"""Answers a request for recommendations: by the unit's model, or else by what is popular.

What is shown to a shopper, whoever ranked it.

The record of one answer.

One answer from two rankings, for rollouts that compare by interleaving.

Copies requests to the challenger of a shadowed rollout; no answer waits for it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from statistics import pstdev
from typing import Any

import orjson
from pydantic import ValidationError

from newshelf.errors import DeadlineExceeded, NewshelfError, Unavailable
from newshelf.files import problems
from newshelf.gateway.context import RequestContext
from newshelf.gateway.fallback import Fallback, FallbackItem
from newshelf.gateway.models import Models
from newshelf.gateway.observability import GatewayMetrics, Spans
from newshelf.gateway.record import ExposureRecorder, ShadowRecorder
from newshelf.gateway.routing import Routed, Router
from newshelf.gateway.schemas import RecommendQuery
from newshelf.gateway.upstream import Reply
from newshelf.rollout.interleaving import team_draft
from newshelf.serving.deadline import Deadline
from newshelf.store.records import Exposure, ShadowAnswer

_NEEDED = ("items", "model_version", "index_version")


@dataclass(frozen=True, slots=True)
class RankedResponse:
    """An answer, best first."""

    items: Sequence[Mapping[str, Any]]
    """``id``, ``score``, ``source`` and perhaps ``reason``."""
    model_version: str
    index_version: str
    ignored: Sequence[str] = ()
    propensities: Sequence[float] | None = None
    """Of each item at its position; None when the variant's probability says all."""
    sources: Sequence[str] | None = None
    """Of each item, for the record; None when the items say all."""
    fallback: bool = False


def read_ranked(body: bytes) -> RankedResponse:
    """What a recommender answered.

    Raises:
        Unavailable: it is no answer of a recommender.
    """
    try:
        table = orjson.loads(body)
        items, model_version, index_version = (table[name] for name in _NEEDED)
        # Their types are checked when the record is made of them.
        seen = {item["id"]: (item["score"], item["source"]) for item in items}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Unavailable(f"the model's answer cannot be read: {error!r}") from None
    if len(seen) != len(items):
        raise Unavailable("the model's answer names a product twice")
    return RankedResponse(items, model_version, index_version, table.get("ignored", ()))


def ranked_without_model(items: Sequence[FallbackItem], version: str) -> RankedResponse:
    """What is popular, in the place of what ``version`` should have answered."""
    rows = [{"id": item.id, "score": item.score, "source": item.source} for item in items]
    return RankedResponse(rows, model_version=version, index_version="", fallback=True)


def exposure_of(unit: str, routed: Routed, shown: RankedResponse, call: RequestContext) -> Exposure:
    """What is written down of an answer, before it leaves.

    A tester's answer names no rollout, so that no analysis counts it.

    Raises:
        ValidationError: the answer has a value that no record has.
    """
    assigned, split = routed.assigned, routed.split
    in_rollout = split is not None and (assigned.counted or assigned.variant == "default")
    count = len(shown.items)
    # An interleaved answer has its own probabilities, beside that of being interleaved.
    drawn = shown.propensities or [1.0] * count
    sources = shown.sources or [item["source"] for item in shown.items]
    return Exposure.model_validate(
        {
            "request_id": call.request_id,
            "unit": unit,
            "at": datetime.now(UTC),
            "rollout": split.rollout if split is not None and in_rollout else None,
            "variant": assigned.variant,
            "model_version": shown.model_version,
            "index_version": shown.index_version,
            "fallback": shown.fallback,
            "latency_ms": call.spent_ms,
            "items": [
                {
                    "item_id": item["id"],
                    "position": position,
                    "score": item["score"],
                    "source": source,
                    "propensity": assigned.propensity * drawn[position - 1],
                }
                for position, (item, source) in enumerate(
                    zip(shown.items, sources, strict=True), start=1
                )
            ],
        }
    )


def interleaved(
    control: RankedResponse, challenger: RankedResponse, k: int, request_id: str
) -> RankedResponse:
    """Let both draft (see ``newshelf.rollout.interleaving``).

    Args:
        control: the answer of the old version.
        challenger: the answer of the new one.
        k: products of the answer.
        request_id: decides the coins.

    Returns:
        The drafted products, each as its team ranked it. ``sources`` name the team as well,
        so that a click can be credited: ``challenger/model``.
    """
    answers = {"control": control, "challenger": challenger}
    by_team = {team: {item["id"]: item for item in one.items} for team, one in answers.items()}
    rankings = list(by_team["control"]), list(by_team["challenger"])
    # The same request is drafted alike wherever it is answered.
    drafted = team_draft(*rankings, k, Random(request_id))  # noqa: S311 - a draw, no secret
    items = [by_team[one.team][one.item_id] for one in drafted]
    unknown = {*control.ignored, *challenger.ignored}
    return RankedResponse(
        items,
        challenger.model_version,
        challenger.index_version,
        ignored=sorted(unknown),
        propensities=[one.propensity for one in drafted],
        sources=[f"{one.team}/{item['source']}" for one, item in zip(drafted, items, strict=True)],
    )


_LOG = logging.getLogger(__name__)
_OK = 200


class ShadowTraffic:
    """One per process.

    Args:
        models: asked for the copies.
        recorder: keeps how they compare.
        metrics: count them.
        timeout_ms: of one copy.
        at_once: copies under way; further ones are dropped and counted.
    """

    def __init__(
        self,
        models: Models,
        recorder: ShadowRecorder,
        metrics: GatewayMetrics,
        *,
        timeout_ms: int,
        at_once: int,
    ) -> None:
        self._models = models
        self._recorder = recorder
        self._metrics = metrics
        self._timeout_ms = timeout_ms
        self._at_once = at_once
        # Kept, or a task that nobody waits for may be collected while it runs.
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(
        self, asked: RecommendQuery, routed: Routed, shown: RankedResponse, call: RequestContext
    ) -> None:
        """Send a copy, if there is a challenger in the shadow and control itself answered."""
        split = routed.split
        if split is None or not split.shadow or shown.fallback:
            return
        if len(self._tasks) >= self._at_once:
            self._metrics.shadow("dropped")
            return
        task = asyncio.create_task(
            self._compare(split.rollout, split.challenger, asked.body, shown, call.request_id)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for the copies that are under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(
        self, rollout: str, challenger: str, body: bytes, control: RankedResponse, request_id: str
    ) -> None:
        started_s = time.perf_counter()
        by_challenger: RankedResponse | None = None
        try:
            deadline = Deadline.after(self._timeout_ms)
            reply = await self._models.ask("recommender", challenger, body, deadline)
            # Control answered this very request, so a 4xx is the challenger's error.
            by_challenger = read_ranked(reply.body) if reply.status == _OK else None
        except NewshelfError as error:
            _LOG.debug("the shadowed model did not answer: %s", error.message)
        latency_ms = (time.perf_counter() - started_s) * 1000
        self._metrics.shadow("failed" if by_challenger is None else "answered")
        answer = ShadowAnswer(
            rollout=rollout,
            request_id=request_id,
            at=datetime.now(UTC),
            latency_ms=latency_ms,
            error=by_challenger is None,
            overlap=None if by_challenger is None else _overlap(control, by_challenger),
            score_drift=None if by_challenger is None else _score_drift(control, by_challenger),
        )
        try:
            await self._recorder.shadow(answer)
        except Unavailable as error:
            _LOG.warning("a shadowed answer was not recorded: %s", error.message)


def _overlap(control: RankedResponse, challenger: RankedResponse) -> float | None:
    """The share of control's products that the challenger shows too."""
    wanted = {item["id"] for item in control.items}
    if not wanted:
        return None
    return len(wanted & {item["id"] for item in challenger.items}) / len(wanted)


def _score_drift(control: RankedResponse, challenger: RankedResponse) -> float | None:
    """Mean absolute difference of the scores of products that both show, in standard
    deviations of control's; of the model's own scores, since no others can be compared.
    """
    ours, theirs = _scores(control.items), _scores(challenger.items)
    both = ours.keys() & theirs.keys()
    deviation = pstdev(ours.values()) if len(ours) > 1 else 0.0
    if not both or not deviation:
        return None
    return sum(abs(ours[item] - theirs[item]) for item in both) / len(both) / deviation


def _scores(items: Any) -> Mapping[str, float]:
    return {item["id"]: item["score"] for item in items if item["source"] == "model"}


_RESERVE_SHARE, _RESERVE_MAX_S = 0.1, 0.05
"""Of the time that there is, kept back from the model for the fallback and the record."""


@dataclass(frozen=True)
class RecommendService:
    """One per process."""

    models: Models
    router: Router
    fallback: Fallback
    recorder: ExposureRecorder
    shadow: ShadowTraffic
    metrics: GatewayMetrics
    spans: Spans
    record_required: bool
    """Whether an answer that could not be recorded is refused."""

    async def answer(self, asked: RecommendQuery, call: RequestContext) -> Reply:
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
        self, asked: RecommendQuery, routed: Routed, call: RequestContext
    ) -> tuple[RankedResponse, Exposure] | Reply:
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
        shown = ranked_without_model(items, routed.assigned.version)
        return shown, exposure_of(asked.unit, routed, shown, call)

    async def _by_model(
        self, asked: RecommendQuery, routed: Routed, call: RequestContext
    ) -> RankedResponse | Reply:
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
        first, *second = [read_ranked(reply.body) for reply in replies]
        if not second:
            return first
        return interleaved(first, second[0], asked.request.k, call.request_id)

    async def _ask(
        self, asked: RecommendQuery, versions: Sequence[str], deadline: Deadline
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


def _recordable(
    asked: RecommendQuery, routed: Routed, shown: RankedResponse, call: RequestContext
) -> Exposure:
    try:
        return exposure_of(asked.unit, routed, shown, call)
    except ValidationError as error:
        raise Unavailable(f"the model's answer is not whole: {problems(error)}") from None


def _body(shown: RankedResponse, call: RequestContext) -> bytes:
    answer: dict[str, object] = {
        "items": shown.items,
        "source": call.source,
        "request_id": call.request_id,
    }
    if shown.ignored:
        answer["ignored"] = shown.ignored
    return orjson.dumps(answer)
