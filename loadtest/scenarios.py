"""Scenarios: how the rate changes over a run, when requests arrive, and the plan of a run.

A shape is a factor of the plan's rate, so one shape serves every rate. Arrivals are a Poisson
process: they are drawn before the run and do not depend on the server.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from loadtest.http_client import address_of
from loadtest.traffic import TrafficSettings
from newshelf.errors import SettingsError
from newshelf.files import problems

Times = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
_BLOCK = 1024
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


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


def poisson_arrivals(
    shape: Shape, rate: float, seconds: float, random: np.random.Generator
) -> Iterator[float]:
    """Draw the moments of a non-homogeneous Poisson process by thinning.

    A homogeneous process of the greatest rate is drawn, and a moment ``t`` of it is kept with
    probability ``rate(t) / greatest rate`` (Lewis and Shedler, *Simulation of nonhomogeneous
    Poisson processes by thinning*, 1979). Independent processes add up: ``n`` of them with
    ``rate / n`` each are one of ``rate``.

    Args:
        shape: how the rate changes over the run.
        rate: requests/s where the shape's factor is 1.
        seconds: how long the run is.
        random: equal states draw equal moments.

    Yields:
        Seconds since the start, ascending, each below ``seconds``. They are drawn in blocks,
        so that a long run takes no memory.
    """
    greatest = rate * shape.peak
    if greatest <= 0:
        return
    last = 0.0
    while last < seconds:
        moments = last + np.cumsum(random.exponential(1 / greatest, _BLOCK))
        last = float(moments[-1])
        chance = random.random(_BLOCK)
        inside = moments < seconds
        moments, chance = moments[inside], chance[inside]
        yield from moments[chance * shape.peak < shape.factor(moments / seconds)].tolist()


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LoadPlan:
    """Everything that a run needs, so that it can be repeated."""

    url: str
    """``http://HOST:PORT``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request, such as the token."""
    catalog: Path
    """The folder of the catalogue that the requests are drawn from."""
    seconds: Positive
    """That are measured."""
    warm_up_s: NotNegative = 5.0
    """Before that, at the rate at which the shape starts; not measured."""
    loop: Literal["open", "closed"] = "open"
    """Open: requests come when they come. Closed: each client waits for its answer."""
    rate: Positive | None = None
    """Of an open loop: requests/s where the shape's factor is 1."""
    clients: Count | None = None
    """Of a closed loop."""
    think_s: NotNegative = 0.0
    """Of a closed loop: mean pause between an answer and the next request, exponential."""
    shape: Shape = Steady()
    """Of an open loop."""
    traffic: TrafficSettings = TrafficSettings()
    processes: Count = 1
    """That share the load; one uses at most one core."""
    seed: Annotated[int, Field(ge=0)] = 7
    """Equal seeds send the same requests at the same moments."""
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    """How long an answer is waited for."""
    max_in_flight: Count = 1000
    """Requests that are under way at a time; arrivals beyond are dropped, and counted."""
    late_after_ms: Positive = 10.0
    """A request that is sent so much after its intended start is the generator's fault."""
    scenario: str = ""
    """A name for the report; empty takes the shape's."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        address_of(self.url)
        if self.loop == "open" and (self.rate is None or self.clients is not None):
            raise ValueError("an open loop needs a rate, and no clients")
        if self.loop == "closed" and (self.clients is None or self.rate is not None):
            raise ValueError("a closed loop needs clients, and no rate")
        if self.loop == "closed" and not isinstance(self.shape, Steady):
            raise ValueError("only an open loop has a shape: its rate does not hang on answers")
        if self.processes > (self.clients or self.max_in_flight):
            raise ValueError("there are more processes than clients or requests in flight")
        return self

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """What says how to repeat the run, without the headers, which hold a token."""
        table = _ADAPTER.dump_python(self, mode="json", exclude={"headers", "url"})
        return dict(_flat(table, ""))


_ADAPTER = TypeAdapter(LoadPlan)


def plan_to_json(plan: LoadPlan) -> str:
    """The plan on one line; it holds the token."""
    return _ADAPTER.dump_json(plan).decode()


def plan_from_json(text: str | bytes) -> LoadPlan:
    """Read what ``plan_to_json`` wrote.

    Raises:
        SettingsError: an unknown key, one that is missing, or a bad value.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        found = problems(error, "the plan")
        raise SettingsError(f"not a plan of a load test: {found}") from error


def _flat(table: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{key}.")
        else:
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            flat.append((f"{prefix}{key}", shown))
    return flat
