"""Scenarios: how the rate changes over a run, when requests arrive, and the plan of a run.

A shape is a factor of the plan's rate, so one shape serves every rate. Arrivals are a Poisson
process: they are drawn before the run and do not depend on the server.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from loadtest.http_client import address_of
from loadtest.traffic import ShopTraffic, TrafficSettings
from newshelf.errors import SettingsError
from newshelf.files import StrictModel, problems

_BLOCK = 1024

_Times = NDArray[np.float64]
_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]


class RandomStream(IntEnum):
    """Part of each random seed, so that a longer warm-up changes nothing else."""

    TRAFFIC = 0
    ARRIVALS = 1
    WARM_UP = 2
    THINKING = 3


class _Shape(StrictModel):
    @property
    def peak(self) -> float:
        """The largest factor."""
        return 1.0

    def factor(self, at: _Times) -> _Times:
        """Return the factors of the plan's rate, ``(n,)`` between 0 and ``peak``.

        ``at`` are times as shares of the run, between 0 (start) and 1 (end).
        """
        return np.ones_like(at)


class Steady(_Shape):
    """A constant rate."""

    name: Literal["steady"] = "steady"


class Soak(_Shape):
    """A constant rate for a long time, to find leaks and slow degradation."""

    name: Literal["soak"] = "soak"


class Ramp(_Shape):
    """A linear change from a share of the rate to the rate itself."""

    name: Literal["ramp"] = "ramp"
    start: float = Field(default=0.1, ge=0)
    """The factor at the start; at the end it is 1."""

    @property
    def peak(self) -> float:
        """The largest factor."""
        return max(self.start, 1.0)

    def factor(self, at: _Times) -> _Times:
        """See the base class."""
        return self.start + (1 - self.start) * at


class Spike(_Shape):
    """The rate, a sudden multiple of it, and the rate again."""

    name: Literal["spike"] = "spike"
    height: float = Field(default=4.0, ge=1)
    """The factor during the spike."""
    begin: _Share = 0.4
    end: _Share = 0.6
    """Start and end of the spike, as shares of the run."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.begin >= self.end:
            raise ValueError("a spike must begin before it ends")
        return self

    @property
    def peak(self) -> float:
        """The largest factor."""
        return self.height

    def factor(self, at: _Times) -> _Times:
        """See the base class."""
        return np.where((at >= self.begin) & (at < self.end), self.height, 1.0)


class Day(_Shape):
    """Night, noon, night: a cosine from its trough to the rate and back."""

    name: Literal["day"] = "day"
    trough: _Share = 0.2
    """The factor at night; at noon it is 1."""
    days: int = Field(default=1, ge=1)
    """Number of days in the run."""

    def factor(self, at: _Times) -> _Times:
        """See the base class."""
        height = (1 - np.cos(2 * math.pi * self.days * at)) / 2
        return self.trough + (1 - self.trough) * height


Shape = Annotated[Steady | Soak | Ramp | Spike | Day, Field(discriminator="name")]


def poisson_arrivals(
    shape: Shape, rate: float, seconds: float, random: np.random.Generator
) -> Iterator[float]:
    """Draw the arrivals of a non-homogeneous Poisson process by thinning.

    A homogeneous process of the peak rate is drawn, and an arrival at ``t`` is kept with
    probability ``rate(t) / peak rate`` (Lewis and Shedler, *Simulation of nonhomogeneous
    Poisson processes by thinning*, 1979). Independent processes add up: ``n`` of them with
    ``rate / n`` each are one of ``rate``.

    ``rate`` is the requests/s where the shape's factor is 1. Equal states of ``random`` draw equal
    arrivals.

    Yields:
        Seconds since the start, ascending, each below ``seconds``. They are drawn in blocks,
        so a long run needs little memory.
    """
    peak_rate = rate * shape.peak
    if peak_rate <= 0:
        return
    last = 0.0
    while last < seconds:
        times = last + np.cumsum(random.exponential(1 / peak_rate, _BLOCK))
        last = float(times[-1])
        chance = random.random(_BLOCK)
        inside = times < seconds
        times, chance = times[inside], chance[inside]
        yield from times[chance * shape.peak < shape.factor(times / seconds)].tolist()


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LoadPlan:
    """Everything that a run needs, so that it can be repeated."""

    url: str
    """``http://HOST:PORT``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request, such as the token."""
    catalog: Path
    """The folder of the catalogue that the requests are drawn from."""
    seconds: _Positive
    """Length of the measurement."""
    warm_up_s: _NotNegative = 5.0
    """Seconds before the measurement, at the rate at which the shape starts."""
    loop: Literal["open", "closed"] = "open"
    """Open: requests arrive independently. Closed: each client waits for its response."""
    rate: _Positive | None = None
    """Open loop: requests/s where the shape's factor is 1."""
    clients: _Count | None = None
    """Closed loop: number of clients."""
    think_s: _NotNegative = 0.0
    """Closed loop: mean pause between a response and the next request, exponential."""
    shape: Shape = Steady()
    """Open loop: how the rate changes."""
    traffic: Annotated[TrafficSettings | ShopTraffic, Field(discriminator="via")] = (
        TrafficSettings()
    )
    processes: _Count = 1
    """Processes that share the load; each uses at most one core."""
    seed: Annotated[int, Field(ge=0)] = 7
    """Equal seeds send the same requests at the same times."""
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    """Timeout of a response."""
    max_in_flight: _Count = 1000
    """Maximum requests in flight; excess arrivals are dropped and counted."""
    late_after_ms: _Positive = 10.0
    """Lateness of sending above which a request counts as late: the generator's fault."""
    scenario: str = ""
    """A name for the report; empty takes the shape's."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        address_of(self.url)
        if self.loop == "open" and (self.rate is None or self.clients is not None):
            raise ValueError("an open loop needs a rate, and no clients")
        if self.loop == "closed" and (self.clients is None or self.rate is not None):
            raise ValueError("a closed loop needs clients, and no rate")
        if self.loop == "closed" and not isinstance(self.shape, Steady):
            raise ValueError("only an open loop has a shape: its rate is independent of responses")
        if self.processes > (self.clients or self.max_in_flight):
            raise ValueError("there are more processes than clients or requests in flight")
        return self

    def arrivals(self, stream: int) -> Iterator[float]:
        """Return the arrivals of one of its processes, in seconds since the start."""
        random = np.random.default_rng([self.seed, stream, RandomStream.ARRIVALS])
        return poisson_arrivals(self.shape, self._process_rate, self.seconds, random)

    def warm_up_arrivals(self, stream: int) -> Iterator[float]:
        """Return likewise those of the warm-up, in seconds since its own start."""
        at_start = self._process_rate * float(self.shape.factor(np.zeros(1))[0])
        random = np.random.default_rng([self.seed, stream, RandomStream.WARM_UP])
        return poisson_arrivals(Steady(), at_start, self.warm_up_s, random)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Return what is needed to repeat the run, without the headers, which hold a token."""
        table = _ADAPTER.dump_python(self, mode="json", exclude={"headers", "url"})
        return dict(_flat(table, ""))

    @property
    def _process_rate(self) -> float:
        return (self.rate or 0.0) / self.processes


_ADAPTER = TypeAdapter(LoadPlan)


def plan_to_json(plan: LoadPlan) -> str:
    """Return the plan on one line; it contains the token."""
    return _ADAPTER.dump_json(plan).decode()


def plan_from_json(text: str | bytes) -> LoadPlan:
    """Read the output of ``plan_to_json``.

    Raises:
        SettingsError: a key is unknown or missing, or a value is invalid.
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
