"""The ASGI application of one gateway process, with its middleware."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from newshelf.gateway.app import ROUTES, make_app
from newshelf.gateway.keys import KeyAccess, KeyFile
from newshelf.gateway.middleware import Middleware
from newshelf.gateway.observability import GatewayMetrics, RequestLog, make_spans
from newshelf.gateway.record import Record, open_record, spool_of
from newshelf.gateway.state import AppState, open_state
from newshelf.server.gateway import GatewayPlan
from newshelf.store.store import EventStore

OpenStore = Callable[[GatewayPlan], AbstractAsyncContextManager[tuple[Record, EventStore]]]


@asynccontextmanager
async def open_store(plan: GatewayPlan) -> AsyncIterator[tuple[Record, EventStore]]:
    """Open the event store and its recorder."""
    with EventStore.connect(plan.store_url) as store:
        async with open_record(store, spool_of(plan)) as record:
            yield record, store
            await store.units.disconnect()


def make_worker(plan: GatewayPlan, *, store: OpenStore = open_store) -> Middleware:
    """Return the application that uvicorn serves in each process."""
    settings = plan.settings
    log = RequestLog(sys.stderr, everything=settings.log_requests)
    access = KeyAccess(KeyFile(plan.api_keys))
    metrics = GatewayMetrics(plan.drift)
    spans = make_spans(settings.traces)
    opened: list[AppState] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            store(plan) as (recorder, opened_store),
            open_state(plan, access, metrics, spans, recorder, opened_store) as state,
        ):
            opened.append(state)
            yield
        log.flush()

    return Middleware(
        make_app(lambda: opened[0], lifespan),
        access=access,
        metrics=metrics,
        spans=spans,
        log=log,
        settings=settings,
        routes=ROUTES,
    )
