"""The state of one gateway process: models, router, recorder, keys and metrics."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from socket import gethostname
from typing import TypeVar

import orjson
from prometheus_client import generate_latest

from newshelf.catalog.schema import ENCODABLE
from newshelf.errors import NewshelfError, Overloaded, ServerError, Unavailable
from newshelf.files import secret_key
from newshelf.gateway.context import RequestContext, end_task
from newshelf.gateway.cursor import Cursors
from newshelf.gateway.fallback import Fallback, read_popular
from newshelf.gateway.histories import Histories, pseudonyms, stored_event
from newshelf.gateway.keys import KeyAccess
from newshelf.gateway.models import BreakerState, ModelName, Models
from newshelf.gateway.observability import GatewayMetrics, InstallationMetrics, Spans
from newshelf.gateway.placements import Placements
from newshelf.gateway.recommend import RecommendService, ShadowTraffic
from newshelf.gateway.record import Record, take_feedback
from newshelf.gateway.schemas import (
    RecommendQuery,
    parse_encode_body,
    parse_feedback_body,
    with_hits,
)
from newshelf.gateway.upstream import Reply, Tokens, Upstream
from newshelf.rollout.assignment import Router
from newshelf.server.program import GatewayPlan
from newshelf.serving.protocol import Deadline
from newshelf.shelf.words import WordIndex
from newshelf.store.records import Feedback
from newshelf.store.store import EventStore

_LOG = logging.getLogger(__name__)
_EACH_S = 1.0
SHOP_KEY = "shop window"
"""Recorded as the key of visitors, who need none; keys' names have no spaces."""


_REQUESTS: dict[ModelName, bytes] = {
    "encoder": orjson.dumps(ENCODABLE),
    "recommender": b'{"k":1}',
}
_BREAKER = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_OK = 200
_KEPT_S, _OTHERS_S = 1.0, 3.0
_PATIENCE_S = 60.0
"""For which a host that joins waits for its controller, and for a rollout's challenger, which may
never answer."""


def _unregistered(controller: str | None, store: EventStore) -> dict[str, str]:
    """Return why rollouts do not wait for this host yet; nothing if they do."""
    try:
        known = controller is None or (controller or gethostname()) in store.hosts.reports()
    except Unavailable as error:
        return {"controller": error.message}
    return {} if known else {"controller": "it has not registered this host yet"}


class Readiness:
    """Sends encoder and recommender a request, at most once a second.

    Of a host that ``joins``, a rollout's versions must answer too, and its controller have
    registered it.
    """

    def __init__(
        self,
        models: Models,
        router: Router,
        recorder: Record | None,
        joins: Callable[[], dict[str, str]] | None = None,
    ) -> None:
        self._joins = joins
        self._models = models
        self._router = router
        self._recorder = recorder
        self._rollouts_s = time.monotonic() + (_PATIENCE_S if joins else 0)
        self._until_s = 0.0
        self._missing: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def missing(self, deadline: Deadline) -> dict[str, str]:
        """Return the models that do not answer, each with the reason."""
        async with self._lock:
            if time.monotonic() >= self._until_s:
                asked = self._asked()
                reasons = await asyncio.gather(*(self._ask(*m, deadline) for m in asked.values()))
                self._missing = {m: why for m, why in zip(asked, reasons, strict=True) if why}
                if self._joins and time.monotonic() < self._rollouts_s:
                    self._missing |= await asyncio.to_thread(self._joins)
                self._until_s = time.monotonic() + _KEPT_S
        return self._missing

    def _asked(self) -> dict[str, tuple[ModelName, str]]:
        """Return model and version by name; an empty version is TorchServe's default."""
        traffic = self._router.current
        asked: dict[str, tuple[ModelName, str]] = {
            "encoder": ("encoder", ""),
            "recommender": ("recommender", traffic.version),
        }
        if time.monotonic() < self._rollouts_s:
            named = {one for split in traffic.splits for one in (split.control, split.challenger)}
            asked |= {f"recommender {one}": ("recommender", one) for one in named}
        return asked

    def spooled(self) -> str | None:
        """Return why answers wait in the spool; ``Unavailable`` if nothing can be recorded."""
        if self._recorder is None:
            return None
        if self._recorder.refused is not None:
            raise Unavailable(f"nothing can be recorded: {self._recorder.refused}")
        return self._recorder.away

    async def _ask(self, model: ModelName, version: str, deadline: Deadline) -> str | None:
        try:
            reply = await self._models.ask(model, version, _REQUESTS[model], deadline)
        except Overloaded:
            return None
        except NewshelfError as error:
            return error.message
        return None if reply.status == _OK else f"answered {reply.status}"


Parse = Callable[..., RecommendQuery]
_LARGE = 64 * 1024
_Parsed = TypeVar("_Parsed")


async def parsed(parse: Callable[..., _Parsed], body: bytes, *more: object) -> _Parsed:
    """Parse a body; one with more than 64 KiB in a thread."""
    large = len(body) > _LARGE
    return await asyncio.to_thread(parse, body, *more) if large else parse(body, *more)


@dataclass(frozen=True)
class AppState:
    """Everything the routes use."""

    plan: GatewayPlan
    recommender: RecommendService
    access: KeyAccess
    store: EventStore
    readiness: Readiness
    strict_readiness: Readiness
    placements: Placements
    words: WordIndex | None

    async def recommend(
        self, parse: Parse, body: bytes, content_type: str, context: RequestContext
    ) -> Reply:
        """Answer a request for products, whose body ``parse`` checks."""
        query = await parsed(parse, body, content_type, self.plan.limits, self.placements)
        return await self.recommender.answer(await with_hits(query, self.words), context)

    async def encode(self, body: bytes, content_type: str, context: RequestContext) -> Reply:
        """Answer a request for embeddings."""
        body = await parsed(parse_encode_body, body, content_type, self.plan.limits)
        context.source = "model"
        return await self.recommender.models.ask("encoder", "", body, context.deadline)

    async def feedback(self, body: bytes, content_type: str, context: RequestContext) -> Reply:
        """Keep what shoppers did."""
        service, max_value, key = self.recommender, self.plan.settings.max_value, context.key
        public = key is not None and key.public
        parsed = parse_feedback_body(body, content_type, max_value=max_value, public=public)
        name = key.name if key else SHOP_KEY
        events = [stored_event(event, service.pseudonym, name) for event in parsed]
        context.count(self.access, "events", len(events))
        reply = await take_feedback(events, service.recorder, service.metrics)
        service.histories.drop(event.unit for event in events if isinstance(event, Feedback))
        return reply

    def set_gauges(self) -> None:
        """Set the metrics that are gauges."""
        service, metrics = self.recommender, self.recommender.metrics
        for (model, version), state in service.models.states().items():
            metrics.breaker.labels(model, version or "default").set(_BREAKER[state])
        metrics.rollouts_age.set(service.router.age_s)
        metrics.record.set(2 if service.recorder.refused else 1 if service.recorder.away else 0)

    async def metrics_page(self, deadline: Deadline) -> bytes:
        """Return the page of ``GET /metrics``."""
        missing = await self.readiness.missing(deadline)
        for model in _REQUESTS:
            self.recommender.metrics.model_up.labels(model).set(model not in missing)
        self.set_gauges()
        page, recorder = self.recommender.metrics.page(), self.recommender.recorder
        store = None if recorder.away else self.store
        files = self.plan.drift, self.plan.torchserve_keys
        others = InstallationMetrics(*files, recorder.spool, store)
        # A store that hangs must not take the other metrics away.
        with suppress(TimeoutError):
            page += await asyncio.wait_for(asyncio.to_thread(generate_latest, others), _OTHERS_S)
        return page


async def _refresh(state: AppState, tokens: Tokens) -> None:
    while True:
        await asyncio.sleep(_EACH_S)
        try:
            # Another process may answer `/metrics`.
            state.set_gauges()
            await state.recommender.router.refresh()
            state.access.refresh()
            state.placements.refresh()
            if tokens.stale():
                await tokens.refresh(Deadline.after(_EACH_S * 1000))
        except Exception:
            # Go on after any error: otherwise revoked keys would stay valid.
            _LOG.exception("the refresh of rollouts, keys, placements and token failed")


@asynccontextmanager
async def open_state(
    plan: GatewayPlan,
    access: KeyAccess,
    metrics: GatewayMetrics,
    spans: Spans,
    recorder: Record,
    store: EventStore,
) -> AsyncIterator[AppState]:
    """Open the state of a process, and close it at the end."""
    settings = plan.settings
    async with AsyncExitStack() as stack:
        stack.callback(spans.close)
        management = plan.management_url and Upstream(
            plan.management_url, connections=2, retry_share=0
        )
        tokens = Tokens(plan.torchserve_keys, management or None)
        try:
            tokens.read()
        except ServerError as error:
            # TorchServe may start later: the fallback answers until then.
            _LOG.warning("TorchServe's token: %s", error.message)
        models = Models(plan.inference_url, tokens, settings)
        stack.push_async_callback(models.close)
        router = Router(store.rollouts.traffic)
        await router.refresh()
        shadow = ShadowTraffic(
            models,
            recorder,
            metrics,
            timeout_ms=settings.timeout_ms,
            at_once=settings.shadow_requests,
        )
        stack.push_async_callback(shadow.close)
        placements = Placements(plan.placements, plan.limits.max_k)
        required = settings.record == "required"
        recommender = RecommendService(
            models=models,
            router=router,
            fallback=Fallback(read_popular(plan.popular)),
            recorder=recorder,
            shadow=shadow,
            metrics=metrics,
            spans=spans,
            histories=Histories(recorder, settings.history, metrics),
            pseudonym=pseudonyms(plan.pseudonym_key),
            cursors=Cursors(secret_key(plan.cursor_key), settings.cursor_s, recorder),
            record_required=required,
            explore_share=settings.explore_share,
        )
        readiness = Readiness(models, router, recorder if required else None)
        joins = partial(_unregistered, plan.controller, store)
        strict = Readiness(models, router, None, joins)
        words = WordIndex(plan.words) if plan.words else None
        state = AppState(plan, recommender, access, store, readiness, strict, placements, words)
        stack.push_async_callback(end_task, asyncio.create_task(_refresh(state, tokens)))
        yield state
