"""Writes answers and events without end, and prints each that was acknowledged.

Usage: writing_process.py URL NAME
"""

import asyncio
import itertools
import os
import sys
from datetime import UTC, datetime

from newshelf.store.group_commit import GroupCommit
from newshelf.store.records import ExposedItem, Exposure, Feedback
from newshelf.store.store import EventStore

CLIENTS = 16


def acknowledge(kind: str, name: str) -> None:
    # At once: what a killed process still holds in a buffer is lost.
    os.write(1, f"{kind} {name}\n".encode())


async def client(group: GroupCommit, name: str) -> None:
    for number in itertools.count():
        request_id = f"{name}-{number}"
        item = ExposedItem(item_id="ring", position=1, score=1, source="model", propensity=1)
        now = datetime.now(UTC)
        answer = Exposure(
            request_id=request_id,
            unit=name,
            at=now,
            model_version="1",
            index_version="1",
            latency_ms=1,
            items=(item,),
        )
        await group.exposure(answer)
        acknowledge("exposure", request_id)
        click = Feedback(
            event_id=request_id, event_type="click", item_id="ring", at=now, request_id=request_id
        )
        (outcome,) = await group.feedback([click])
        acknowledge(f"feedback:{outcome}", request_id)


async def main(url: str, name: str) -> None:
    store = EventStore.open(url)
    group = GroupCommit(store, max_wait_s=600, connections=store.async_connections())
    await asyncio.gather(*(client(group, f"{name}-{one}") for one in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
