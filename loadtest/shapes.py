"""How the load changes over a run: the arrival rate as a function of time.

A shape is a factor to the plan's rate, so that one shape serves every rate.
"""

import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Day", "Ramp", "Shape", "Soak", "Spike", "Steady"]

Times = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def peak(self) -> float:
        """The largest factor."""
        return 1.0

    def factor(self, at: Times) -> Times:
        """The factor to the plan's rate.

        Args:
            at: moments ``(n,)`` as shares of the run, between 0 (start) and 1 (end).

        Returns:
            ``(n,)``, each between 0 and ``peak``.
        """
        return np.ones_like(at)


class Steady(_Shape):
    """The same rate all the time."""

    name: Literal["steady"] = "steady"


class Soak(_Shape):
    """The same rate for a long time: looks for what leaks or tires."""

    name: Literal["soak"] = "soak"


class Ramp(_Shape):
    """From a share of the rate straight up (or down) to the rate itself."""

    name: Literal["ramp"] = "ramp"
    start: float = Field(default=0.1, ge=0)
    """The factor at the start; at the end it is 1."""

    @property
    def peak(self) -> float:
        """The largest factor."""
        return max(self.start, 1.0)

    def factor(self, at: Times) -> Times:
        """See the base."""
        return self.start + (1 - self.start) * at


class Spike(_Shape):
    """The rate, a sudden multiple of it, and the rate again."""

    name: Literal["spike"] = "spike"
    height: float = Field(default=4.0, ge=1)
    """The factor while it lasts."""
    begin: Share = 0.4
    end: Share = 0.6
    """From when to when, as shares of the run."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.begin >= self.end:
            raise ValueError("a spike must begin before it ends")
        return self

    @property
    def peak(self) -> float:
        """The largest factor."""
        return self.height

    def factor(self, at: Times) -> Times:
        """See the base."""
        return np.where((at >= self.begin) & (at < self.end), self.height, 1.0)


class Day(_Shape):
    """Night, noon, night: a cosine from its trough to the rate and back."""

    name: Literal["day"] = "day"
    trough: Share = 0.2
    """The factor at night; at noon it is 1."""
    days: int = Field(default=1, ge=1)
    """How many of them the run is."""

    def factor(self, at: Times) -> Times:
        """See the base."""
        height = (1 - np.cos(2 * math.pi * self.days * at)) / 2
        return self.trough + (1 - self.trough) * height


Shape = Annotated[Steady | Soak | Ramp | Spike | Day, Field(discriminator="name")]
