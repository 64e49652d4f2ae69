"""The application of one process: every part opened, with the guard around it."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from newshelf.gateway.access import Access
from newshelf.gateway.app import ROUTES, make_app
from newshelf.gateway.guard import Guard
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.log import RequestLog
from newshelf.gateway.metrics import Metrics
from newshelf.gateway.parts import Parts, open_parts
from newshelf.gateway.ports import ReadSplits, WatchedRecorder
from newshelf.gateway.record import open_record, spool_of
from newshelf.gateway.tracing import make_spans
from newshelf.rollout.assignment import assign
from newshelf.rollout.store import EventStore
from newshelf.server.gateway_plan import GatewayPlan

__all__ = ["OpenStore", "make_worker", "open_store"]

OpenStore = Callable[[GatewayPlan], AbstractAsyncContextManager[tuple[WatchedRecorder, ReadSplits]]]


@asynccontextmanager
async def open_store(plan: GatewayPlan) -> AsyncIterator[tuple[WatchedRecorder, ReadSplits]]:
    """The event store: what writes to it, and what reads the rollouts."""
    with EventStore.connect(plan.store_url) as store:
        async with open_record(store, spool_of(plan)) as record:
            yield record, store.splits


def make_worker(plan: GatewayPlan, *, store: OpenStore = open_store) -> Guard:
    """What uvicorn serves in each process.

    Args:
        plan: settings and places.
        store: opens the event store.

    Raises:
        SettingsError: the keys cannot be read, or traces cannot be made.
    """
    settings = plan.settings
    log = RequestLog(sys.stderr, everything=settings.log_requests)
    access = Access(KeyFile(plan.api_keys))
    metrics = Metrics()
    spans = make_spans(settings.traces)
    opened: list[Parts] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            store(plan) as (recorder, read_splits),
            open_parts(
                plan,
                access=access,
                metrics=metrics,
                spans=spans,
                recorder=recorder,
                read_splits=read_splits,
                assign=assign,
            ) as parts,
        ):
            opened.append(parts)
            yield
        log.flush()

    return Guard(
        make_app(lambda: opened[0], lifespan),
        access=access,
        metrics=metrics,
        spans=spans,
        log=log,
        settings=settings,
        routes=ROUTES,
    )
