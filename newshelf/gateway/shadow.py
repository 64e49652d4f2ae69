"""Copies requests to the challenger of a shadowed rollout; no answer waits for it."""

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import pstdev
from typing import Any

from newshelf.errors import NewshelfError, Unavailable
from newshelf.gateway.call import Call
from newshelf.gateway.deadline import Deadline
from newshelf.gateway.metrics import Metrics
from newshelf.gateway.models import Models
from newshelf.gateway.parse import Asked
from newshelf.gateway.ports import ShadowRecorder
from newshelf.gateway.routing import Routed
from newshelf.gateway.shown import Shown, read_shown
from newshelf.rollout.store import ShadowAnswer

__all__ = ["Shadow"]

_LOG = logging.getLogger(__name__)
_OK = 200


class Shadow:
    """One per process.

    Args:
        models: asked for the copies.
        recorder: keeps how they compare.
        metrics: count them.
        timeout_ms: of one copy.
        at_once: copies under way; further ones are dropped and counted.
    """

    def __init__(
        self,
        models: Models,
        recorder: ShadowRecorder,
        metrics: Metrics,
        *,
        timeout_ms: int,
        at_once: int,
    ) -> None:
        self._models = models
        self._recorder = recorder
        self._metrics = metrics
        self._timeout_ms = timeout_ms
        self._at_once = at_once
        # Kept, or a task that nobody waits for may be collected while it runs.
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, asked: Asked, routed: Routed, shown: Shown, call: Call) -> None:
        """Send a copy, if there is a challenger in the shadow and control itself answered."""
        split = routed.split
        if split is None or not split.shadow or shown.fallback:
            return
        if len(self._tasks) >= self._at_once:
            self._metrics.shadow("dropped")
            return
        task = asyncio.create_task(
            self._compare(split.rollout, split.challenger, asked.body, shown, call.request_id)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for the copies that are under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(
        self, rollout: str, challenger: str, body: bytes, control: Shown, request_id: str
    ) -> None:
        started_s = time.perf_counter()
        by_challenger: Shown | None = None
        try:
            deadline = Deadline.after(self._timeout_ms)
            reply = await self._models.ask("recommender", challenger, body, deadline)
            # Control answered this very request, so a 4xx is the challenger's error.
            by_challenger = read_shown(reply.body) if reply.status == _OK else None
        except NewshelfError as error:
            _LOG.debug("the shadowed model did not answer: %s", error.message)
        latency_ms = (time.perf_counter() - started_s) * 1000
        self._metrics.shadow("failed" if by_challenger is None else "answered")
        answer = ShadowAnswer(
            rollout=rollout,
            request_id=request_id,
            at=datetime.now(UTC),
            latency_ms=latency_ms,
            error=by_challenger is None,
            overlap=None if by_challenger is None else _overlap(control, by_challenger),
            score_drift=None if by_challenger is None else _score_drift(control, by_challenger),
        )
        try:
            await self._recorder.shadow(answer)
        except Unavailable as error:
            _LOG.warning("a shadowed answer was not recorded: %s", error.message)


def _overlap(control: Shown, challenger: Shown) -> float | None:
    """The share of control's products that the challenger shows too."""
    wanted = {item["id"] for item in control.items}
    if not wanted:
        return None
    return len(wanted & {item["id"] for item in challenger.items}) / len(wanted)


def _score_drift(control: Shown, challenger: Shown) -> float | None:
    """Mean absolute difference of the scores of products that both show, in standard
    deviations of control's; of the model's own scores, since no others can be compared.
    """
    ours, theirs = _scores(control.items), _scores(challenger.items)
    both = ours.keys() & theirs.keys()
    deviation = pstdev(ours.values()) if len(ours) > 1 else 0.0
    if not both or not deviation:
        return None
    return sum(abs(ours[item] - theirs[item]) for item in both) / len(both) / deviation


def _scores(items: Any) -> Mapping[str, float]:
    return {item["id"]: item["score"] for item in items if item["source"] == "model"}
