"""What the challenger answered to copies of requests, beside control's answer."""

from datetime import datetime

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from newshelf.catalog.schema import Id
from newshelf.rollout.store.clock import to_us
from newshelf.rollout.store.sample import sampled_latencies
from newshelf.rollout.store.schema import shadow_answers
from newshelf.rollout.totals import Floats

__all__ = ["SHADOW_COLUMNS", "ShadowAnswer", "shadow_row", "summarise_shadow"]

SHADOW_COLUMNS = (
    "rollout",
    "request_id",
    "at_us",
    "latency_ms",
    "error",
    "overlap",
    "score_drift",
)


class ShadowAnswer(BaseModel):
    """One copied request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rollout: str = Field(min_length=1, max_length=200)
    request_id: Id
    at: datetime
    latency_ms: float = Field(ge=0)
    """Until the challenger answered, failed, or was given up."""
    error: bool = False
    overlap: float | None = Field(default=None, ge=0, le=1)
    """Share of control's products that the challenger shows too; None when it failed."""
    score_drift: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Mean absolute difference of the scores of products that both show, in standard deviations
    of control's scores of this answer; None when there is none, or no deviation."""


def shadow_row(answer: ShadowAnswer) -> tuple[object, ...]:
    """The values of ``SHADOW_COLUMNS``."""
    return (
        answer.rollout,
        answer.request_id,
        to_us(answer.at),
        answer.latency_ms,
        answer.error,
        answer.overlap,
        answer.score_drift,
    )


def summarise_shadow(
    connection: Connection, rollout: str, since: datetime
) -> tuple[dict[str, float], Floats]:
    """``requests``, ``errors``, ``overlap``, ``score_drift`` and ``p99_ms`` since a moment, and
    the latencies, or a sample of them.

    Means are of the answers that have a value; what no answer has is left out. Empty when
    nothing was copied.
    """
    answer = shadow_answers.c
    chosen = (answer.rollout == rollout, answer.at_us >= to_us(since))
    row = connection.execute(
        select(
            func.count().label("requests"),
            func.count().filter(answer.error).label("errors"),
            func.avg(answer.overlap).label("overlap"),
            func.avg(answer.score_drift).label("score_drift"),
        ).where(*chosen)
    ).one()
    if row.requests == 0:
        return {}, np.empty(0)
    latencies_ms = sampled_latencies(connection, shadow_answers, row.requests, *chosen)
    found = {**row._mapping, "p99_ms": float(np.percentile(latencies_ms, 99))}
    return {name: float(value) for name, value in found.items() if value is not None}, latencies_ms
