"""What became of an event that a front end sent."""

from typing import Literal, get_args

__all__ = ["OUTCOMES", "Outcome"]

Outcome = Literal[
    "stored",
    "duplicate",
    "unjoined",
    "spooled",
    "conflict",
    "unknown_request",
    "unknown_item",
    "before_answer",
]
"""``stored``: with the answer that showed the product. ``duplicate``: the event is there
already, nothing was changed. ``unjoined``: kept for training, but no answer showed the product
to the unit within the window, so no rollout counts it. ``spooled``: kept on this
machine until the store is back, and joined then. Not kept: ``conflict`` (another
event has this id), ``unknown_request`` (there is no such answer, or the event names neither a
request nor a unit), ``unknown_item`` (the answer did not show the product) and
``before_answer`` (the event happened longer before the answer than the window)."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
