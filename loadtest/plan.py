"""What a load test is to do."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from loadtest.shapes import Shape, Steady
from loadtest.traffic import TrafficSettings
from loadtest.wire import address_of
from newshelf.errors import SettingsError
from newshelf.validated import problems

__all__ = ["LoadPlan", "plan_from_json", "plan_to_json"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


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
