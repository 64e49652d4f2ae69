"""How units are split between the versions, as the gateway reads it from the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BUCKETS", "Assigned", "Split"]

BUCKETS = 10_000


class Split(BaseModel):
    """One running rollout, as far as serving it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rollout: str
    salt: str
    """Another one for each rollout, so that two of them are independent."""
    control: str
    """Version of the recommender that is served to control and to those outside."""
    challenger: str
    share: float = Field(ge=0, le=0.5)
    """Of the units that see the challenger; as many are control. Growing it only adds units."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Of the units that are never in a rollout, by a salt of their own."""
    shadow: bool = False
    """Copy requests to the challenger, and answer from control."""
    interleave: bool = False
    """Units of the challenger's share see both rankings, drafted by teams."""
    overrides: Mapping[str, Literal["control", "challenger"]] = {}
    """Testers' units. They are not counted in the analysis."""


@dataclass(frozen=True)
class Assigned:
    """Where one unit belongs."""

    variant: Literal["default", "control", "challenger", "interleaved"]
    version: str
    """Of the recommender that answers it."""
    bucket: int
    """0 to ``BUCKETS`` − 1."""
    counted: bool
    """Whether it is part of the experiment."""
    propensity: float
    """The probability of this variant, before the unit was known."""
