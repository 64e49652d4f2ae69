"""Takes in what shoppers did."""

from collections.abc import Sequence

import orjson

from newshelf.errors import Conflict, InvalidField, RequestError, UnknownRequest
from newshelf.gateway.http1 import Reply
from newshelf.gateway.metrics import Metrics
from newshelf.gateway.parse import InvalidEvent
from newshelf.gateway.ports import FeedbackRecorder
from newshelf.rollout.records import Feedback
from newshelf.rollout.store import Outcome

__all__ = ["take_feedback"]

_REFUSED: dict[Outcome, tuple[type[RequestError], str, str]] = {
    "conflict": (
        Conflict,
        "event_id",
        "another event has this id: its product, type, value or answer differs; "
        "give each line of an order an id of its own",
    ),
    "unknown_request": (UnknownRequest, "request_id", "no answer has this request_id"),
    "unknown_item": (
        UnknownRequest,
        "item_id",
        "the answer with this request_id did not show this product",
    ),
    "before_answer": (
        InvalidField,
        "at",
        "this moment is more than a day before the answer with this request_id",
    ),
}
"""Error, field and reason of the outcomes that are the sender's mistake; the event is not kept."""


async def take_feedback(
    events: Sequence[Feedback | InvalidEvent], recorder: FeedbackRecorder, metrics: Metrics
) -> Reply:
    """Keep events, and answer when they are kept.

    Returns:
        200 as soon as one event was kept, with what became of each.

    Raises:
        RequestError: not one was kept; of the first.
        Unavailable: the store is away; sending the same events again is safe.
    """
    valid = [event for event in events if isinstance(event, Feedback)]
    outcomes = iter(await recorder.feedback(valid) if valid else [])
    results: list[dict[str, str | None]] = []
    errors: list[RequestError] = []
    for index, event in enumerate(events):
        error: RequestError | None = None
        if isinstance(event, InvalidEvent):
            outcome, error = "invalid", event.error
        else:
            outcome = next(outcomes)
            if outcome in _REFUSED:
                kind, field, message = _REFUSED[outcome]
                path = f"events[{index}].{field}" if len(events) > 1 else field
                error = kind(message, field=path)
        metrics.feedback(outcome)
        results.append({"event_id": event.event_id, "outcome": outcome})
        if error is not None:
            errors.append(error)
            results[-1] |= error.body()
    if len(errors) == len(events):
        raise errors[0]
    accepted = len(events) - len(errors)
    return Reply(200, "application/json", orjson.dumps({"accepted": accepted, "results": results}))
