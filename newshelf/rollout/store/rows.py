"""Records ↔ rows of the tables."""

import math
from collections.abc import Sequence
from typing import Any

import orjson

from newshelf.rollout.records import ExposedItem, Exposure
from newshelf.rollout.store.clock import from_us, to_us

__all__ = [
    "EXPOSURE_COLUMNS",
    "exposure",
    "exposure_row",
    "item_key",
    "ranking_from",
    "ranking_text",
]

EXPOSURE_COLUMNS = (
    "request_id",
    "unit",
    "at_us",
    "rollout",
    "variant",
    "model_version",
    "index_version",
    "fallback",
    "status",
    "latency_ms",
    "shown",
    "ranking",
)
"""The order of ``exposure_row``."""


def exposure_row(answer: Exposure) -> tuple[Any, ...]:
    """The values of ``EXPOSURE_COLUMNS``."""
    return (
        answer.request_id,
        answer.unit,
        to_us(answer.at),
        answer.rollout,
        answer.variant,
        answer.model_version,
        answer.index_version,
        answer.fallback,
        answer.status,
        answer.latency_ms,
        len(answer.items),
        ranking_text(answer.items),
    )


def exposure(row: Any) -> Exposure:
    """The record of a row that has ``EXPOSURE_COLUMNS`` as attributes."""
    return Exposure(
        request_id=row.request_id,
        unit=row.unit,
        at=from_us(row.at_us),
        rollout=row.rollout,
        variant=row.variant,
        model_version=row.model_version,
        index_version=row.index_version,
        fallback=row.fallback,
        status=row.status,
        latency_ms=row.latency_ms,
        items=ranking_from(row.ranking),
    )


def ranking_text(items: Sequence[ExposedItem]) -> str:
    """``[[item_id, position, score, source, propensity], …]`` as JSON.

    JSON has no infinities: a score that is not finite is null, and read back as NaN.
    """
    return orjson.dumps(
        [(item.item_id, item.position, item.score, item.source, item.propensity) for item in items]
    ).decode()


def ranking_from(text: str) -> tuple[ExposedItem, ...]:
    """What ``ranking_text`` wrote."""
    return tuple(
        ExposedItem(
            item_id=item_id,
            position=position,
            score=math.nan if score is None else score,
            source=source,
            propensity=propensity,
        )
        for item_id, position, score, source, propensity in orjson.loads(text)
    )


def item_key(item_id: str) -> str:
    """What stands in ``ranking_text`` where the product was shown, and nowhere else.

    Within a JSON string a quote has a backslash before it, so no source or id can hold it.
    """
    return f"[{orjson.dumps(item_id).decode()},"
