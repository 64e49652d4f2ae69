"""What the gateway answers, as data: the shapes that ``/openapi.json`` tells of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from newshelf.rollout.store import Outcome
from newshelf.serving.schemas import RecommendedItem

__all__ = [
    "Alive",
    "EventResult",
    "FeedbackOut",
    "Ready",
    "RecommendOut",
    "RolloutOut",
    "RolloutsOut",
]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecommendOut(_Answer):
    """At most ``k`` products, best first."""

    items: list[RecommendedItem]
    source: Literal["model", "fallback"]
    """``fallback``: the model did not answer, and this is what is popular."""
    request_id: str
    """To be sent back with what the shopper does."""
    ignored: list[str] = []
    """Ids of history or candidates that the index does not know; left out when empty."""


class EventResult(_Answer):
    """What became of one event."""

    event_id: str | None
    """None where the event has no valid one."""
    outcome: Outcome | Literal["invalid"]
    code: str | None = None
    """Of the error, where the event was not kept; left out otherwise."""
    message: str | None = None
    field: str | None = None


class FeedbackOut(_Answer):
    """One entry for each event, in the same order."""

    accepted: int
    """Those that are kept, now or since before."""
    results: list[EventResult]


class RolloutOut(_Answer):
    """A rollout that is served."""

    rollout: str
    control: str
    challenger: str
    share: Annotated[float, Field(ge=0, le=0.5)]
    """Of the units that see the challenger; as many are control."""
    holdout: float
    shadow: bool
    interleave: bool


class RolloutsOut(_Answer):
    """The rollouts that this process serves."""

    rollouts: list[RolloutOut]
    age_s: float
    """Since they were read from the store."""


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Answer):
    """Shoppers get an answer, from the model or from what is popular, and it is recorded."""

    status: Literal["ready"] = "ready"
    missing: dict[str, str]
    """Models that do not answer, with the reason."""
    spooled: str | None = None
    """Why answers wait in the spool for the event store; left out while they do not."""
