"""A process that stores one gateway's share of the load: answers that arrive at random.

Reads a ``GatewayLoad`` as JSON from standard input and writes ``Waits`` to standard output.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import uvloop

from newshelf.errors import Unavailable
from newshelf.store.group_commit import GroupCommit
from newshelf.store.records import ExposedItem, Exposure, Feedback, FeedbackOutcome
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

_ITEMS = 10
_UNITS, _PRODUCTS = 100_000, 20_000


@dataclass(frozen=True)
class GatewayLoad:
    """Load of one gateway."""

    url: str | None
    """None stores nothing: thread, event loop and machine only."""
    per_second: float
    seconds: float
    warm_up_s: float
    """Length of the load before the measured one."""
    busy_us: float
    """Other computing of the event loop for each answer, as in a gateway; it holds the GIL."""
    seed: int


@dataclass(frozen=True)
class Waits:
    """Measured waits of one gateway."""

    waits_ms: list[float]
    """Time from call to return, of each stored answer."""
    failed: int
    """Answers that were not stored in time."""
    measured_s: float
    cpu_s: float
    """CPU time of this process."""


class _Nothing:
    """A store that keeps nothing."""

    def write(self, writes: WriteBatch) -> list[FeedbackOutcome]:
        return ["stored" for _ in writes.feedback]


async def _run(plan: GatewayLoad) -> Waits:
    store = None if plan.url is None else EventStore.open(plan.url)
    group = (
        GroupCommit(_Nothing())
        if store is None
        else GroupCommit(store, connections=store.async_connections())
    )
    chance = random.Random(plan.seed)  # noqa: S311 - reproducible, nothing is secret
    answers = [
        made_answer(chance) for _ in range(int((plan.warm_up_s + plan.seconds) * plan.per_second))
    ]
    await _arrive(group, answers[: int(plan.warm_up_s * plan.per_second)], plan, chance)
    result = await _arrive(group, answers[int(plan.warm_up_s * plan.per_second) :], plan, chance)
    await group.close()
    if store is not None:
        store.close()
    return result


async def _arrive(
    group: GroupCommit, answers: list[Exposure], plan: GatewayLoad, chance: random.Random
) -> Waits:
    """Store each answer when it is due, however many still wait."""
    waits_ms: list[float] = []
    failed = 0

    async def store(answer: Exposure) -> None:
        nonlocal failed
        called = time.perf_counter()
        try:
            await group.exposure(answer)
        except Unavailable:
            failed += 1
            return
        waits_ms.append((time.perf_counter() - called) * 1e3)

    began, cpu = time.perf_counter(), time.process_time()
    due = began
    async with asyncio.TaskGroup() as tasks:
        for answer in answers:
            due += chance.expovariate(plan.per_second)
            # Also when it is late: other tasks of the loop must run.
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            _compute(plan.busy_us)
            tasks.create_task(store(answer))
    measured_s = time.perf_counter() - began
    return Waits(waits_ms, failed, measured_s, time.process_time() - cpu)


def _compute(busy_us: float) -> None:
    until = time.perf_counter() + busy_us / 1e6
    while time.perf_counter() < until:
        pass


def made_answer(chance: random.Random) -> Exposure:
    """Return an answer with ten products for one of many shoppers."""
    items = tuple(
        ExposedItem(
            item_id=f"NS{chance.randrange(_PRODUCTS):05}",
            position=place,
            score=chance.random(),
            source="model",
            propensity=1.0,
        )
        for place in range(1, _ITEMS + 1)
    )
    return Exposure(
        request_id=chance.randbytes(16).hex(),
        unit=f"shopper-{chance.randrange(_UNITS)}",
        at=datetime.now(UTC),
        rollout="spring",
        variant="control",
        model_version="2.0",
        index_version="0123456789abcdef",
        latency_ms=12.5,
        items=items,
    )


def click(answer: Exposure) -> Feedback:
    """Return a click on the first product of an answer."""
    return Feedback(
        event_id=answer.request_id,
        event_type="click",
        item_id=answer.items[0].item_id,
        at=answer.at,
        request_id=answer.request_id,
    )


if __name__ == "__main__":
    json.dump(asdict(uvloop.run(_run(GatewayLoad(**json.load(sys.stdin))))), sys.stdout)
