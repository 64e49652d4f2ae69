"""What a run must keep, and whether it did.

Limits are read from a file such as ``loadtest/slo.yaml``, or from the short form that
``./run tune`` reads, too (``p99=50ms,errors=0.1%``).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.timeline import Timeline, Totals
from newshelf.errors import SettingsError
from newshelf.tuning.slo import LatencyLimit, parse_slo

ALL = "all"
"""The scope of limits on all requests together."""

_Latency = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Objective:
    """Limits of some requests; all must hold."""

    latencies: tuple[LatencyLimit, ...] = ()
    """The lowest percentile first."""
    error_rate: float | None = None
    """At most, between 0 and 1."""
    throughput: float | None = None
    """Right answers per second, at least."""


@dataclass(frozen=True)
class Limits:
    """Those of all requests together, and of single kinds."""

    every: Objective = Objective()
    kinds: Mapping[str, Objective] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """One limit of one scope."""

    scope: str
    """``all``, or a kind of request."""
    name: str
    """``p99_ms``, ``error_rate`` or ``throughput``."""
    limit: float
    measured: float | None
    """None when no such request was meant to be sent."""

    @property
    def word(self) -> str:
        """What is limited, such as ``p99`` or ``error rate``."""
        return self.name.removesuffix("_ms").replace("_", " ")

    @property
    def kept(self) -> bool:
        """Whether it holds; a limit on what was not sent is passed over."""
        if self.measured is None:
            return True
        if self.name == "throughput":
            return self.measured >= self.limit
        return self.measured <= self.limit

    @property
    def excess(self) -> float:
        """How far beyond the limit, in its own unit; negative when there is room."""
        if self.measured is None:
            return 0.0
        gap = self.measured - self.limit
        return -gap if self.name == "throughput" else gap

    @property
    def excess_share(self) -> float:
        """The same as a share of the limit; infinite beyond a limit of 0."""
        if self.limit:
            return self.excess / self.limit
        return float("inf") if self.excess > 0 else 0.0

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.scope}: {self.name} was not tested: no such request was sent"
        told = _told(self.name, self.measured)
        bound = "at least" if self.name == "throughput" else "at most"
        limit = f"{bound} {_told(self.name, self.limit)}"
        if self.kept:
            return f"{self.scope}: {self.word} is {told}; {limit} was asked for"
        how_much = _told(self.name, self.excess)
        share = f", {self.excess_share:.0%}" if abs(self.excess_share) < float("inf") else ""
        side = "below" if self.name == "throughput" else "above"
        return (
            f"{self.scope}: {self.word} is {told}; {limit} was asked for ({how_much}{share} {side})"
        )


def judge(limits: Limits, timeline: Timeline) -> list[Verdict]:
    """Hold a run against the limits: one verdict for each."""
    found = list(_verdicts(ALL, limits.every, timeline.total()))
    for kind, objective in limits.kinds.items():
        found += _verdicts(kind, objective, timeline.total(kind))
    return found


def read_limits(text: str, kinds: Collection[str]) -> Limits:
    """Read ``--slo``: a YAML file, or the short form, whose limits are for all requests.

    Args:
        text: a path, or limits such as ``p99=50ms,errors=0.1%``.
        kinds: the kinds of request that there are.

    Raises:
        SettingsError: it cannot be read; names the place and what may stand there.
    """
    if "=" in text and not Path(text).exists():
        slo = parse_slo(text)
        return Limits(Objective(slo.latencies, slo.failed_share))
    path = Path(text)
    try:
        table = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"--slo {path} cannot be read: {error.strerror}; name a file such as "
            "loadtest/slo.yaml, or write limits such as p99=50ms,errors=0.1%"
        ) from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return _checked(table, path, kinds)


class _Objective(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    p50_ms: _Latency | None = None
    p95_ms: _Latency | None = None
    p99_ms: _Latency | None = None
    error_rate: float | None = Field(default=None, ge=0, le=1)
    throughput: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    def objective(self) -> Objective:
        asked = ((50.0, self.p50_ms), (95.0, self.p95_ms), (99.0, self.p99_ms))
        latencies = tuple(LatencyLimit(percent, most) for percent, most in asked if most)
        return Objective(latencies, self.error_rate, self.throughput)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    all: _Objective = _Objective()
    kinds: dict[str, _Objective] = {}


def _checked(table: Any, path: Path, kinds: Collection[str]) -> Limits:
    if not isinstance(table, dict):
        raise SettingsError(f"{path} must have the sections 'all' and 'kinds', or one of them")
    try:
        file = _File.model_validate(table)
    except ValidationError as error:
        raise SettingsError(f"{path}, {_problem(error)}") from error
    for kind in file.kinds:
        if kind not in kinds:
            raise SettingsError(
                f"{path}, kinds: there is no kind of request {kind!r}; there are "
                f"{', '.join(sorted(kinds))}"
            )
    limits = Limits(
        file.all.objective(), {kind: part.objective() for kind, part in file.kinds.items()}
    )
    scoped = {ALL: limits.every, **{f"kinds.{kind}": one for kind, one in limits.kinds.items()}}
    if not any(one != Objective() for one in scoped.values()):
        raise SettingsError(f"{path} sets no limit; the limits are {_names(_Objective)}")
    for scope, objective in scoped.items():
        _check_order(objective, f"{path}, {scope}")
    return limits


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        *above, name = first["loc"]
        allowed = _names(_Objective if above else _File)
        where = ".".join(map(str, above)) or "top level"
        return f"{where}: unknown field {name!r}; allowed are {allowed}"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}, not {first['input']!r}"


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _check_order(objective: Objective, place: str) -> None:
    latencies = objective.latencies
    for low, high in pairwise(latencies):
        if low.most_ms > high.most_ms:
            raise SettingsError(
                f"{place}: p{low.percent:g}_ms allows more than p{high.percent:g}_ms, which is "
                "the higher percentile: were they exchanged?"
            )


def _verdicts(scope: str, objective: Objective, totals: Totals) -> Iterator[Verdict]:
    # Of all requests together, none at all is no run that kept anything.
    sent = totals.intended > 0 or scope == ALL
    for limit in objective.latencies:
        measured = totals.latency.percentile_ms(limit.percent) if sent else None
        yield Verdict(scope, f"p{limit.percent:g}_ms", limit.most_ms, measured)
    if objective.error_rate is not None:
        share = totals.error_rate if totals.intended else 1.0
        yield Verdict(scope, "error_rate", objective.error_rate, share if sent else None)
    if objective.throughput is not None:
        yield Verdict(
            scope, "throughput", objective.throughput, totals.throughput if sent else None
        )


def _told(name: str, value: float) -> str:
    if name.endswith("_ms"):
        return "infinite" if value == float("inf") else f"{value:.1f} ms"
    return f"{value:.2%}" if name == "error_rate" else f"{value:.2f}/s"
