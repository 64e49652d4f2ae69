"""Takes in what shoppers did."""

from collections.abc import Sequence

import orjson

from newshelf.errors import UnknownRequest
from newshelf.gateway.http1 import Reply
from newshelf.gateway.ports import FeedbackRecorder
from newshelf.rollout.records import Feedback
from newshelf.rollout.store import Outcome

__all__ = ["take_feedback"]

_WHY: dict[Outcome, tuple[str, str]] = {
    "unknown_request": ("request_id", "no answer has this request_id"),
    "unknown_item": ("item_id", "the answer with this request_id did not show this product"),
}
"""Field and reason of the outcomes that are the sender's mistake; the event is not kept."""


async def take_feedback(events: Sequence[Feedback], recorder: FeedbackRecorder) -> Reply:
    """Keep events, and answer when they are kept.

    Returns:
        200 as soon as one event was kept, with what became of each.

    Raises:
        UnknownRequest: not one was kept; tells of the first.
        Unavailable: the store is away; sending the same events again is safe.
    """
    outcomes = await recorder.feedback(events)
    accepted = sum(outcome not in _WHY for outcome in outcomes)
    if not accepted:
        field, message = _WHY[outcomes[0]]
        raise UnknownRequest(message, field=f"events[0].{field}" if len(events) > 1 else field)
    results = [_result(event, outcome) for event, outcome in zip(events, outcomes, strict=True)]
    return Reply(200, "application/json", orjson.dumps({"accepted": accepted, "results": results}))


def _result(event: Feedback, outcome: Outcome) -> dict[str, str]:
    result: dict[str, str] = {"event_id": event.event_id, "outcome": outcome}
    if outcome in _WHY:
        result |= {"code": UnknownRequest.code, "message": _WHY[outcome][1]}
    return result
