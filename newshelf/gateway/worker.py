"""The application of one process: every part opened, with the guard around it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from newshelf.gateway.access import Access
from newshelf.gateway.app import ROUTES, make_app
from newshelf.gateway.guard import Guard
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.log import RequestLog
from newshelf.gateway.metrics import Metrics
from newshelf.gateway.parts import Parts, open_parts
from newshelf.gateway.tracing import make_spans
from newshelf.rollout.assignment import assign
from newshelf.rollout.store import EventStore, GroupCommit
from newshelf.server.gateway_plan import GatewayPlan

__all__ = ["make_worker"]


def make_worker(plan: GatewayPlan) -> Guard:
    """What uvicorn serves in each process.

    Args:
        plan: settings and places.

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
        with EventStore.open(plan.store_url) as store:
            # An answer that is too late anyway need not wait for its record.
            commits = GroupCommit(store, max_wait_s=settings.max_timeout_ms / 1000)
            try:
                async with open_parts(
                    plan,
                    access=access,
                    metrics=metrics,
                    spans=spans,
                    recorder=commits,
                    read_splits=store.splits,
                    assign=assign,
                ) as parts:
                    opened.append(parts)
                    yield
            finally:
                await commits.close()
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
