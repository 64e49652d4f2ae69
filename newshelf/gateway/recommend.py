"""Answers to requests for recommendations: by the model of the unit's variant, by two interleaved
models, or by the fallback; with the exposure of each, and shadow requests to a challenger.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from statistics import pstdev
from typing import Any

import orjson
from pydantic import ValidationError

from newshelf.errors import DeadlineExceeded, NewshelfError, Unavailable, UnknownItem
from newshelf.files import problems
from newshelf.gateway.context import RequestContext
from newshelf.gateway.cursor import Cursors
from newshelf.gateway.fallback import Fallback
from newshelf.gateway.histories import Histories, Pseudonym, decayed
from newshelf.gateway.models import Models
from newshelf.gateway.observability import GatewayMetrics, Spans
from newshelf.gateway.record import Record
from newshelf.gateway.schemas import RecommendQuery
from newshelf.gateway.upstream import Reply
from newshelf.rollout.assignment import Routed, Router, team_draft
from newshelf.serving.protocol import Deadline
from newshelf.serving.schemas import RecommendRequest
from newshelf.store.records import Exposure, ShadowAnswer
from newshelf.store.units import Interaction

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
    """Probability of each item at its position; None if only the variant is random."""
    sources: Sequence[str] | None = None
    """Source of each item, for the record; None for that of the items."""
    fallback: bool = False
    understood: Mapping[str, Any] | None = None
    """Of a search: how its sentence was read."""


def read_ranked(body: bytes) -> RankedResponse:
    """Parse a recommender's answer, or raise ``Unavailable``."""
    try:
        table = orjson.loads(body)
        items, model_version, index_version = (table[name] for name in _NEEDED)
        # The exposure checks their types.
        seen = {item["id"]: (item["score"], item["source"]) for item in items}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Unavailable(f"the model's answer cannot be read: {error!r}") from None
    if len(seen) != len(items):
        raise Unavailable("the model's answer names a product twice")
    return RankedResponse(
        items,
        model_version,
        index_version,
        table.get("ignored", ()),
        understood=table.get("understood"),
    )


def exposure_of(
    query: RecommendQuery, routed: Routed, ranked: RankedResponse, context: RequestContext
) -> Exposure:
    """Return the exposure of an answer; a tester's names no rollout, so no analysis counts it."""
    assigned, split = routed.assigned, routed.split
    in_rollout = split is not None and (assigned.counted or assigned.variant == "default")
    count = len(ranked.items)
    # An interleaved answer has probabilities of its own, in addition to the variant's.
    drawn = ranked.propensities or [1.0] * count
    sources = ranked.sources or [item["source"] for item in ranked.items]
    return Exposure.model_validate(
        {
            "request_id": context.request_id,
            # A search of nobody known is a unit of its own.
            "unit": query.unit or context.request_id,
            "placement": query.request.placement,
            "kind": _kind(query.request),
            "at": datetime.now(UTC),
            "rollout": split.rollout if split is not None and in_rollout else None,
            "variant": assigned.variant,
            "model_version": ranked.model_version,
            "index_version": ranked.index_version,
            "fallback": ranked.fallback,
            "latency_ms": context.spent_ms,
            "rules": _positions_by_rule(ranked.items),
            "items": [
                {
                    "item_id": item["id"],
                    "position": position,
                    "score": item["score"],
                    "source": source,
                    "propensity": assigned.propensity * drawn[position - 1],
                }
                for position, (item, source) in enumerate(
                    zip(ranked.items, sources, strict=True), start=1
                )
            ],
        }
    )


def _kind(request: RecommendRequest) -> str | None:
    if request.search is not None:
        return "search"
    return None if request.kind == "for_you" else request.kind


def _positions_by_rule(items: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[int]]:
    touched: dict[str, list[int]] = {}
    for position, item in enumerate(items, start=1):
        for rule in item.get("rules", ()):
            touched.setdefault(rule, []).append(position)
    return touched


def interleaved(
    control: RankedResponse, challenger: RankedResponse, k: int, request_id: str
) -> RankedResponse:
    """Interleave two answers by team draft (see ``newshelf.rollout.assignment``).

    Returns ``k`` drafted products, each as its team ranked it, around those that a rule pins in
    both answers. ``sources`` also name the team, so that a click can be credited:
    ``challenger/model``. ``request_id`` seeds the coin flips.
    """
    answers = {"control": control, "challenger": challenger}
    by_team = {team: {item["id"]: item for item in one.items} for team, one in answers.items()}
    # What both have at one position by a rule is no team's choice, and earns no team a click.
    pins = {
        place: one
        for place, (one, other) in enumerate(zip(control.items, challenger.items, strict=False))
        if one["source"] == other["source"] == "pinned" and one["id"] == other["id"]
    }
    pinned = {item["id"] for item in pins.values()}
    ours, theirs = ([item for item in by_team[team] if item not in pinned] for team in answers)
    # The same request gets the same draft in every process.
    drafted = team_draft(ours, theirs, k - len(pins), Random(request_id))  # noqa: S311 - no secret
    rows = [(by_team[one.team][one.item_id], one.propensity, f"{one.team}/") for one in drafted]
    for place, item in sorted(pins.items()):
        rows.insert(place, (item, 1.0, ""))
    unknown = {*control.ignored, *challenger.ignored}
    return RankedResponse(
        [item for item, _, _ in rows],
        challenger.model_version,
        challenger.index_version,
        ignored=sorted(unknown),
        propensities=[propensity for _, propensity, _ in rows],
        sources=[f"{team}{item['source']}" for item, _, team in rows],
        understood=control.understood,
    )


_LEAST_EXPLORED = 3
"""Products of an explored answer: in shorter ones the record does not show which pair it was."""


def explored(ranked: RankedResponse, share: float, request_id: str) -> RankedResponse:
    """Put one pair of neighbours in random order, in a ``share`` of the answers.

    Pair k is drawn with a probability of 1/k, up to a factor, as the first positions say most. The
    pair's propensities are 1/2 in either order, so that the record tells which pair it was.
    Retraining learns from its events how position biases others (docs/retraining.md).
    """
    random = Random(f"explore {request_id}")  # noqa: S311 - no secret
    if len(ranked.items) < _LEAST_EXPLORED or random.random() >= share:
        return ranked
    places = range(1, len(ranked.items))
    (place,) = random.choices(places, [1 / one for one in places])
    pair = ranked.items[place - 1 : place + 1]
    if any(item["source"] == "pinned" for item in pair):
        return ranked
    rows, propensities = list(ranked.items), [1.0] * len(ranked.items)
    rows[place - 1 : place + 1] = random.sample(pair, 2)
    propensities[place - 1 : place + 1] = 0.5, 0.5
    return replace(ranked, items=rows, propensities=propensities)


_LOG = logging.getLogger(__name__)
_OK = 200


@dataclass(eq=False)
class ShadowTraffic:
    """Copies requests, ``at_once`` at most, to a shadow challenger; no answer waits for it."""

    models: Models
    recorder: Record
    metrics: GatewayMetrics
    timeout_ms: int
    at_once: int

    def __post_init__(self) -> None:
        # A task without a reference may be garbage-collected while it runs.
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(
        self, query: RecommendQuery, routed: Routed, ranked: RankedResponse, context: RequestContext
    ) -> None:
        """Send a copy, if there is a shadow rollout and control answered."""
        split = routed.split
        if split is None or not split.shadow or ranked.fallback:
            return
        if len(self._tasks) >= self.at_once:
            self.metrics.shadow.labels("dropped").inc()
            return
        task = asyncio.create_task(
            self._compare(split.rollout, split.challenger, query.body, ranked, context.request_id)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for the copies in progress."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(
        self, rollout: str, challenger: str, body: bytes, control: RankedResponse, request_id: str
    ) -> None:
        started_s = time.perf_counter()
        by_challenger: RankedResponse | None = None
        try:
            deadline = Deadline.after(self.timeout_ms)
            reply = await self.models.ask("recommender", challenger, body, deadline)
            # Control answered this request, so a 4xx is the challenger's error.
            by_challenger = read_ranked(reply.body) if reply.status == _OK else None
        except NewshelfError as error:
            _LOG.debug("the shadow model did not answer: %s", error.message)
        latency_ms = (time.perf_counter() - started_s) * 1000
        outcome = "failed" if by_challenger is None else "answered"
        self.metrics.shadow.labels(outcome).inc()
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
            await self.recorder.shadow(answer)
        except Unavailable as error:
            _LOG.warning("a shadow answer was not recorded: %s", error.message)


def _overlap(control: RankedResponse, challenger: RankedResponse) -> float | None:
    """Return the share of control's products that the challenger also has."""
    wanted = {item["id"] for item in control.items}
    if not wanted:
        return None
    return len(wanted & {item["id"] for item in challenger.items}) / len(wanted)


def _score_drift(control: RankedResponse, challenger: RankedResponse) -> float | None:
    """Return common products' mean score difference in standard deviations of control's."""
    ours, theirs = _scores(control.items), _scores(challenger.items)
    both = ours.keys() & theirs.keys()
    deviation = pstdev(ours.values()) if len(ours) > 1 else 0.0
    if not both or not deviation:
        return None
    return sum(abs(ours[item] - theirs[item]) for item in both) / len(both) / deviation


def _scores(items: Any) -> Mapping[str, float]:
    return {item["id"]: item["score"] for item in items if item["source"] == "model"}


_MOST_INTERACTIONS, _MOST_PURCHASES = 1_000, 200
_HALF_LIFE_DAYS = 60


def purchases(done: Sequence[Interaction]) -> list[str]:
    """Return the purchased products by number of purchases, which halve in 60 days."""
    weights = decayed(done, _HALF_LIFE_DAYS, {"purchase": 1.0})
    return sorted(weights, key=lambda item: -weights[item])


_RESERVE_SHARE, _RESERVE_MAX_S = 0.1, 0.05
"""Share of the remaining time that is reserved for the fallback and the record."""


@dataclass(frozen=True)
class RecommendService:
    """Answers requests and records the answers."""

    models: Models
    router: Router
    fallback: Fallback
    recorder: Record
    shadow: ShadowTraffic
    metrics: GatewayMetrics
    spans: Spans
    cursors: Cursors
    histories: Histories
    pseudonym: Pseudonym
    record_required: bool
    """Refuse an answer that could not be recorded."""
    explore_share: float

    async def answer(self, query: RecommendQuery, context: RequestContext) -> Reply:
        """Answer, record, and only then return the model's 200 or 4xx.

        Raises ``Unavailable`` if the answer could not be recorded. ``context`` gets source, reason
        and version.
        """
        query = replace(query, unit=self.pseudonym(query.unit))
        query, earlier = await self.cursors.page(query)
        if query.request.kind == "buy_again":
            query = await self._with_purchases(query)
        asked = query
        query = await self.histories.filled(asked)
        routed = self.router.route(query.unit, context.tester)
        context.version = routed.assigned.version
        found = await self._find(query, routed, context)
        if isinstance(found, Reply):
            return found
        ranked, exposure = found
        context.source = "fallback" if ranked.fallback else "model"
        recorded = await self._record(exposure)
        if ranked.items:
            self.shadow.copy(query, routed, ranked, context)
        more = recorded and len(ranked.items) >= query.request.k
        cursor = self.cursors.following(query, earlier, context.request_id) if more else None
        if query is not asked:
            # The client did not name the products of this history.
            unknown = set(ranked.ignored).difference(query.request.history)
            ranked = replace(ranked, ignored=sorted(unknown))
        return Reply(_OK, "application/json", _body(ranked, context, cursor))

    async def preview(self, query: RecommendQuery, context: RequestContext) -> Reply:
        """Return the answer of the model of the query's unit, which nobody sees or records."""
        query = replace(query, unit=self.pseudonym(query.unit))
        if query.request.kind == "buy_again":
            query = await self._with_purchases(query)
        query = await self.histories.filled(query)
        context.version = self.router.route(query.unit, context.tester).assigned.version
        return await self.models.ask("recommender", context.version, query.body, context.deadline)

    async def _find(
        self, query: RecommendQuery, routed: Routed, context: RequestContext
    ) -> tuple[RankedResponse, Exposure] | Reply:
        nothing = RankedResponse((), routed.assigned.version, "")
        if query.request.candidates == []:
            return nothing, exposure_of(query, routed, nothing, context)
        try:
            ranked = await self._by_model(query, routed, context)
            if isinstance(ranked, Reply):
                if query.request.kind != "buy_again" or ranked.status != UnknownItem.http_status:
                    return ranked
                ranked = nothing
            return ranked, _recordable(query, routed, ranked, context)
        except Unavailable as error:
            if context.deadline.left_s() <= 0:
                raise DeadlineExceeded("there was no answer before the deadline") from error
            context.reason = error.message
            self.metrics.fallbacks.labels(error.code).inc()
        found = self.fallback.recommend(query.request)
        rows = [{"id": one.id, "score": one.score, "source": one.source} for one in found]
        ranked = replace(nothing, items=rows, fallback=True)
        return ranked, exposure_of(query, routed, ranked, context)

    async def _with_purchases(self, query: RecommendQuery) -> RecommendQuery:
        """Return the query with the unit's purchases as its candidates, the best first."""
        done = await self.recorder.history(query.unit, _MOST_INTERACTIONS)
        bought = purchases(done)
        named = query.request.candidates
        wanted = bought if named is None else [item for item in bought if item in named]
        return query.replaced(candidates=wanted[:_MOST_PURCHASES], history=[])

    async def _by_model(
        self, query: RecommendQuery, routed: Routed, context: RequestContext
    ) -> RankedResponse | Reply:
        """Return the answer of the unit's model, or of both models, interleaved."""
        versions = [routed.assigned.version]
        if routed.assigned.variant == "interleaved" and routed.split is not None:
            versions = [routed.split.control, routed.split.challenger]
        reserve_s = min(_RESERVE_MAX_S, _RESERVE_SHARE * context.deadline.left_s())
        deadline = context.deadline.earlier(reserve_s)
        with self.spans.span("model"), self.metrics.model_seconds.time():
            replies = await self._ask(query, versions, deadline)
        for reply in replies:
            if reply.status != _OK:
                return reply
        first, *second = [read_ranked(reply.body) for reply in replies]
        if not second:
            return explored(first, self.explore_share, context.request_id)
        return interleaved(first, second[0], query.request.k, context.request_id)

    async def _ask(
        self, query: RecommendQuery, versions: Sequence[str], deadline: Deadline
    ) -> Sequence[Reply]:
        if len(versions) == 1:
            return [await self.models.ask("recommender", versions[0], query.body, deadline)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.models.ask("recommender", version, query.body, deadline))
                    for version in versions
                ]
        except* NewshelfError as failed:
            # The other task has been cancelled.
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _record(self, exposure: Exposure) -> bool:
        try:
            with self.spans.span("record"), self.metrics.record_seconds.time():
                await self.recorder.exposure(exposure)
        except Unavailable:
            self.metrics.unrecorded.inc()
            if self.record_required:
                raise
            return False
        return True


def _recordable(
    query: RecommendQuery, routed: Routed, ranked: RankedResponse, context: RequestContext
) -> Exposure:
    try:
        return exposure_of(query, routed, ranked, context)
    except ValidationError as error:
        raise Unavailable(f"the model's answer is incomplete: {problems(error)}") from None


def _body(ranked: RankedResponse, context: RequestContext, cursor: str | None) -> bytes:
    answer: dict[str, object] = {
        "items": ranked.items,
        "source": context.source,
        "request_id": context.request_id,
    }
    if ranked.ignored:
        answer["ignored"] = ranked.ignored
    if ranked.understood is not None:
        answer["understood"] = ranked.understood
    if cursor is not None:
        answer["cursor"] = cursor
    return orjson.dumps(answer)
