"""What is written down of every answer, and of what shoppers did with it.

A *unit* is whom variants are assigned to: a shopper, or a visitor without a name. It is the
front end's own id; nothing else about the person is kept.
"""

from datetime import datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from newshelf.catalog.schema import Id

__all__ = ["VARIANTS", "ExposedItem", "Exposure", "Feedback", "FeedbackType"]

FeedbackType = Literal["view", "click", "cart", "purchase"]
Variant = Literal["default", "control", "challenger", "interleaved"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


class _Row(BaseModel):
    # A score may be infinite: as null, which is JSON's, it could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ExposedItem(_Row):
    """One product that was shown."""

    item_id: Id
    position: int = Field(ge=1)
    """From 1, the first."""
    score: float
    source: str
    """``model``, ``similar``, ``category`` or ``popular``."""
    propensity: float = Field(gt=0, le=1)
    """The probability with which this product was put at this position, given what was known
    before the unit was assigned. Off-policy estimates divide by it."""


class Exposure(_Row):
    """One answered request."""

    request_id: Id
    unit: Id
    at: datetime
    """With its time zone, UTC."""
    rollout: str | None = None
    """None when no rollout was running."""
    variant: Variant = "default"
    """``default``: served by the old version, and not in the experiment."""
    model_version: str
    index_version: str
    fallback: bool = False
    """Answered without the model."""
    status: int = 200
    """As the shopper's front end was answered."""
    latency_ms: float = Field(ge=0)
    items: tuple[ExposedItem, ...]


class Feedback(_Row):
    """Something that a shopper did with a product."""

    event_id: Id
    """The front end's; the same event sent twice is kept once."""
    event_type: FeedbackType
    item_id: Id
    at: datetime
    request_id: Id | None = None
    """Of the answer that showed it. Without one it is joined to the unit's last exposure of the
    product within the window."""
    unit: Id | None = None
    value: float | None = Field(default=None, ge=0)
    """Revenue, in the shop's currency; of a purchase."""
