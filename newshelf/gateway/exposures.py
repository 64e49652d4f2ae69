"""The record of one answer."""

from datetime import UTC, datetime

from newshelf.gateway.call import Call
from newshelf.gateway.routing import Routed
from newshelf.gateway.shown import Shown
from newshelf.rollout.records import Exposure

__all__ = ["exposure_of"]


def exposure_of(unit: str, routed: Routed, shown: Shown, call: Call) -> Exposure:
    """What is written down of an answer, before it leaves.

    A tester's answer names no rollout, so that no analysis counts it.

    Raises:
        ValidationError: the answer has a value that no record has.
    """
    assigned, split = routed.assigned, routed.split
    in_rollout = split is not None and (assigned.counted or assigned.variant == "default")
    count = len(shown.items)
    # An interleaved answer has its own probabilities, beside that of being interleaved.
    drawn = shown.propensities or [1.0] * count
    sources = shown.sources or [item["source"] for item in shown.items]
    return Exposure.model_validate(
        {
            "request_id": call.request_id,
            "unit": unit,
            "at": datetime.now(UTC),
            "rollout": split.rollout if split is not None and in_rollout else None,
            "variant": assigned.variant,
            "model_version": shown.model_version,
            "index_version": shown.index_version,
            "fallback": shown.fallback,
            "latency_ms": call.spent_ms,
            "items": [
                {
                    "item_id": item["id"],
                    "position": position,
                    "score": item["score"],
                    "source": source,
                    "propensity": assigned.propensity * drawn[position - 1],
                }
                for position, (item, source) in enumerate(
                    zip(shown.items, sources, strict=True), start=1
                )
            ],
        }
    )
