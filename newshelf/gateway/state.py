"""The state of one gateway process: its models, router, recorder and keys, opened as one."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from newshelf.config import Limits
from newshelf.errors import ServerError
from newshelf.gateway.context import Deadline
from newshelf.gateway.fallback import Fallback, read_popular
from newshelf.gateway.keys import KeyAccess
from newshelf.gateway.models import Models
from newshelf.gateway.observability import GatewayMetrics, Spans
from newshelf.gateway.readiness import Readiness
from newshelf.gateway.recommend import RecommendService, ShadowTraffic
from newshelf.gateway.record import Assign, ReadSplits, WatchedRecorder
from newshelf.gateway.routing import Router
from newshelf.gateway.upstream import Tokens, Upstream
from newshelf.server.gateway import GatewayPlan

_LOG = logging.getLogger(__name__)


async def _keep_up(router: Router, access: KeyAccess, tokens: Tokens) -> None:
    """Each second: what the store, the keys and the token's clock say now."""
    while True:
        await asyncio.sleep(_EACH_S)
        try:
            await router.refresh()
            access.refresh()
            if tokens.stale():
                await tokens.refresh(Deadline.after(_EACH_S * 1000))
        except Exception:
            # Whatever it was, the next look comes: without one, revoked keys would go on.
            _LOG.exception("a look at store, keys and token failed")


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


_EACH_S = 1.0


@dataclass(frozen=True)
class AppState:
    """Used by the routes."""

    models: Models
    router: Router
    recommender: RecommendService
    access: KeyAccess
    recorder: WatchedRecorder
    readiness: Readiness
    metrics: GatewayMetrics
    limits: Limits
    max_value: float
    """Of a purchase."""

    def look(self) -> None:
        """Note the state of what is not counted."""
        recorder = self.recorder
        record = 2 if recorder.refused else 1 if recorder.away else 0
        self.metrics.look(self.models.states(), self.router.age_s, record)


@asynccontextmanager
async def open_state(
    plan: GatewayPlan,
    *,
    access: KeyAccess,
    metrics: GatewayMetrics,
    spans: Spans,
    recorder: WatchedRecorder,
    read_splits: ReadSplits,
    assign: Assign,
) -> AsyncIterator[AppState]:
    """Everything between the routes and the world.

    Args:
        plan: settings and places.
        access: its keys are read again when their file changes.
        metrics: of this process.
        spans: of this process; closed at the end.
        recorder: the event store.
        read_splits: tells the rollouts; asked each second.
        assign: says where a unit belongs.

    Raises:
        SettingsError: a file is missing or damaged.
    """
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
            # TorchServe may come later: until then the fallback answers.
            _LOG.warning("TorchServe's token: %s", error.message)
        models = Models(plan.inference_url, tokens, settings)
        stack.push_async_callback(models.close)
        router = Router(read_splits, assign)
        await router.refresh()
        shadow = ShadowTraffic(
            models,
            recorder,
            metrics,
            timeout_ms=settings.timeout_ms,
            at_once=settings.shadow_requests,
        )
        stack.push_async_callback(shadow.close)
        required = settings.record == "required"
        recommender = RecommendService(
            models=models,
            router=router,
            fallback=Fallback(read_popular(plan.popular)),
            recorder=recorder,
            shadow=shadow,
            metrics=metrics,
            spans=spans,
            record_required=required,
        )
        beside = asyncio.create_task(_keep_up(router, access, tokens))
        stack.push_async_callback(_end, beside)
        yield AppState(
            models=models,
            router=router,
            recommender=recommender,
            access=access,
            recorder=recorder,
            readiness=Readiness(models, recorder if required else None),
            metrics=metrics,
            limits=plan.limits,
            max_value=settings.max_value,
        )
