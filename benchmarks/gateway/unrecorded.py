"""The gateway without the event store, whose cost is the difference.

``python -m benchmarks.gateway.unrecorded PLAN``
"""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from newshelf.gateway.main import run
from newshelf.gateway.record import Record
from newshelf.server.gateway import GatewayPlan, read_plan
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


def worker(plan: GatewayPlan) -> object:
    """Return the gateway's application without a store."""
    # Metrics look for their folder when they are imported.
    from newshelf.gateway.app import make_worker  # noqa: PLC0415
    from newshelf.gateway.observability import set_up_log  # noqa: PLC0415

    set_up_log()
    return make_worker(plan, store=_no_store)


if __name__ == "__main__":
    run(read_plan(Path(sys.argv[1])), worker)
