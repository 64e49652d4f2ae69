"""The gateway without the event store, whose cost is the difference.

``python -m benchmarks.gateway.unrecorded PLAN``
"""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from newshelf.gateway.app import make_worker
from newshelf.gateway.main import uvicorn_options
from newshelf.gateway.observability import set_up_log
from newshelf.gateway.record import Record
from newshelf.server.program import GatewayPlan, read_gateway_plan
from newshelf.store.records import Exposure, Feedback, FeedbackOutcome, ShadowAnswer
from newshelf.store.store import EventStore
from newshelf.store.units import Interaction


class _Nowhere(Record):
    def __init__(self) -> None:
        self.away = self.refused = None

    async def exposure(self, exposure: Exposure) -> None:
        """Drop it."""

    async def feedback(self, feedback: Sequence[Feedback]) -> list[FeedbackOutcome]:
        return ["stored"] * len(feedback)

    async def shadow(self, answer: ShadowAnswer) -> None:
        """Drop it."""

    async def shown(self, request_ids: Sequence[str]) -> list[str]:  # noqa: ARG002
        return []

    async def history(self, unit: str, limit: int) -> list[Interaction]:  # noqa: ARG002
        return []


@asynccontextmanager
async def _no_store(plan: GatewayPlan) -> AsyncIterator[tuple[Record, EventStore]]:
    with EventStore.connect(plan.store_url) as store:
        yield _Nowhere(), store


if __name__ == "__main__":
    set_up_log()
    served = read_gateway_plan(Path(sys.argv[1]))
    settings = served.settings
    uvicorn.run(
        make_worker(served, store=_no_store),
        host=settings.host,
        port=settings.port,
        **uvicorn_options(settings),
    )
