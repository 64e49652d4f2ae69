"""The state of one gateway process: models, router, recorder, keys and metrics."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from newshelf.config import Limits
from newshelf.errors import ServerError
from newshelf.files import secret_key
from newshelf.gateway.cursor import Cursors
from newshelf.gateway.fallback import Fallback, read_popular
from newshelf.gateway.histories import Histories, Pseudonym, pseudonyms
from newshelf.gateway.keys import KeyAccess
from newshelf.gateway.models import Models
from newshelf.gateway.observability import GatewayMetrics, Spans
from newshelf.gateway.placements import Placements
from newshelf.gateway.readiness import Readiness
from newshelf.gateway.recommend import RecommendService, ShadowTraffic
from newshelf.gateway.record import Assign, WatchedRecorder
from newshelf.gateway.routing import Router
from newshelf.gateway.upstream import Tokens, Upstream
from newshelf.server.gateway import GatewayPlan
from newshelf.serving.deadline import Deadline
from newshelf.shelf.words import WordIndex
from newshelf.store.store import EventStore

_LOG = logging.getLogger(__name__)


async def _refresh(
    router: Router, access: KeyAccess, placements: Placements, tokens: Tokens
) -> None:
    while True:
        await asyncio.sleep(_EACH_S)
        try:
            await router.refresh()
            access.refresh()
            placements.refresh()
            if tokens.stale():
                await tokens.refresh(Deadline.after(_EACH_S * 1000))
        except Exception:
            # Go on after any error: otherwise revoked keys would stay valid.
            _LOG.exception("the refresh of rollouts, keys, placements and token failed")


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


_EACH_S = 1.0


@dataclass(frozen=True)
class AppState:
    """Everything the routes use."""

    models: Models
    router: Router
    recommender: RecommendService
    access: KeyAccess
    recorder: WatchedRecorder
    store: EventStore
    histories: Histories
    pseudonym: Pseudonym
    readiness: Readiness
    metrics: GatewayMetrics
    limits: Limits
    placements: Placements
    words: WordIndex | None
    max_value: float
    """Of a purchase."""

    def update_gauges(self) -> None:
        """Set the metrics that are gauges."""
        recorder = self.recorder
        record = 2 if recorder.refused else 1 if recorder.away else 0
        self.metrics.set_gauges(self.models.states(), self.router.age_s, record)


@asynccontextmanager
async def open_state(
    plan: GatewayPlan,
    *,
    access: KeyAccess,
    metrics: GatewayMetrics,
    spans: Spans,
    recorder: WatchedRecorder,
    store: EventStore,
    assign: Assign,
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
        router = Router(store.rollouts.splits, assign)
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
        pseudonym = pseudonyms(plan.pseudonym_key)
        histories = Histories(recorder, settings.history, metrics)
        required = settings.record == "required"
        recommender = RecommendService(
            models=models,
            router=router,
            fallback=Fallback(read_popular(plan.popular)),
            recorder=recorder,
            shadow=shadow,
            metrics=metrics,
            spans=spans,
            histories=histories,
            pseudonym=pseudonym,
            cursors=Cursors(secret_key(plan.cursor_key), settings.cursor_s, recorder),
            units=recorder,
            record_required=required,
        )
        refreshing = asyncio.create_task(_refresh(router, access, placements, tokens))
        stack.push_async_callback(_end, refreshing)
        yield AppState(
            models=models,
            router=router,
            recommender=recommender,
            access=access,
            recorder=recorder,
            store=store,
            histories=histories,
            pseudonym=pseudonym,
            readiness=Readiness(models, recorder if required else None),
            metrics=metrics,
            limits=plan.limits,
            placements=placements,
            words=WordIndex(plan.words) if plan.words else None,
            max_value=settings.max_value,
        )
