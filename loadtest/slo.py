"""Service-level objectives: limits of latency, errors, fallbacks and throughput, and verdicts.

They come from a file such as ``loadtest/slo.yaml``, or in short form, ``p99=50ms,errors=0.1%``.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.timeline import Timeline, Totals
from newshelf.errors import SettingsError
from newshelf.files import StrictModel

ALL = "all"
"""The scope of limits for all requests together."""
_EXAMPLE = "for example p99=50ms,p50=20ms,errors=0.1%"
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, order=True)
class LatencyLimit:
    """``percent`` of the requests take at most ``most_ms`` milliseconds."""

    percent: float
    most_ms: float

    def __str__(self) -> str:
        return f"p{self.percent:g}={self.most_ms:.10g}ms"


@dataclass(frozen=True)
class Slo:
    """Limits for a set of requests; all must hold."""

    latencies: tuple[LatencyLimit, ...] = ()
    """The lowest percentile first."""
    error_rate: float | None = None
    """Maximum share of failed requests, between 0 and 1."""
    throughput: float | None = None
    """Minimum right responses per second."""
    fallback_rate: float | None = None
    """Maximum share of the gateway's fallback in right responses, between 0 and 1."""

    @property
    def strictest(self) -> LatencyLimit:
        """The limit of the highest percentile, which plots and comparisons show."""
        return self.latencies[-1]

    def missed(self, percentile_ms: Callable[[float], float], failed_share: float) -> list[str]:
        """Return the latencies and errors that exceed the limits, in words."""
        missed = [
            f"p{limit.percent:g} is {percentile_ms(limit.percent):.1f} ms"
            for limit in self.latencies
            if percentile_ms(limit.percent) > limit.most_ms
        ]
        if self.error_rate is not None and failed_share > self.error_rate:
            missed.append(f"{failed_share:.2%} of the requests failed")
        return missed

    def __str__(self) -> str:
        errors = f",errors={self.error_rate * 100:g}%" if self.error_rate else ""
        return ",".join(map(str, self.latencies)) + errors


@dataclass(frozen=True)
class SloSet:
    """Limits for all requests together, and for single kinds."""

    every: Slo = field(default_factory=Slo)
    kinds: Mapping[str, Slo] = field(default_factory=dict)


@dataclass(frozen=True)
class SloVerdict:
    """One limit of one scope, and what was measured."""

    scope: str
    """``all``, or a kind of request."""
    name: str
    """``p99_ms``, ``error_rate``, ``fallback_rate`` or ``throughput``."""
    limit: float
    measured: float | None
    """None if no such request was sent."""

    @property
    def metric(self) -> str:
        """The name in words, such as ``p99`` or ``error rate``."""
        return self.name.removesuffix("_ms").replace("_", " ")

    @property
    def kept(self) -> bool:
        """True if the limit holds; one for requests that were not sent does."""
        if self.measured is None:
            return True
        if self.name == "throughput":
            return self.measured >= self.limit
        return self.measured <= self.limit

    @property
    def excess(self) -> float:
        """Distance beyond the limit, in its own unit; negative within the limit."""
        if self.measured is None:
            return 0.0
        gap = self.measured - self.limit
        return -gap if self.name == "throughput" else gap

    @property
    def excess_share(self) -> float:
        """The excess as a share of the limit; infinite if the limit is 0."""
        if self.limit:
            return self.excess / self.limit
        return float("inf") if self.excess > 0 else 0.0

    def __str__(self) -> str:
        at_least = self.name == "throughput"
        bound = f"{'at least' if at_least else 'at most'} {_in_unit(self.name, self.limit)}"
        if self.measured is None:
            return f"{self.scope}: {self.metric} was not tested: no such request was sent"
        text = f"{self.scope}: {self.metric} is {_in_unit(self.name, self.measured)}"
        if self.kept:
            return f"{text}; the limit is {bound}"
        share = f", {self.excess_share:.0%}" if abs(self.excess_share) < float("inf") else ""
        side = "below" if at_least else "above"
        excess = _in_unit(self.name, self.excess)
        return f"{text}; the limit is {bound} ({excess}{share} {side})"


def judge(limits: SloSet, timeline: Timeline) -> list[SloVerdict]:
    """Check a run: all requests together, then each kind that has limits."""
    found = _verdicts(limits.every, ALL, timeline.total())
    for kind, slo in limits.kinds.items():
        found += _verdicts(slo, kind, timeline.total(kind))
    return found


def _verdicts(slo: Slo, scope: str, total: Totals) -> list[SloVerdict]:
    # A kind that is not sent passes; a run without any request does not.
    is_sent = total.intended > 0 or scope == ALL
    rates = (
        ("error_rate", slo.error_rate, total.error_rate if total.intended else 1.0),
        ("fallback_rate", slo.fallback_rate, total.fallback_rate),
        ("throughput", slo.throughput, total.throughput),
    )
    values: list[tuple[str, float, float]] = [
        (f"p{one.percent:g}_ms", one.most_ms, total.latency.percentile_ms(one.percent))
        for one in slo.latencies
    ]
    values += [(name, limit, measured) for name, limit, measured in rates if limit is not None]
    return [
        SloVerdict(scope, name, limit, measured if is_sent else None)
        for name, limit, measured in values
    ]


def parse_slo(text: str) -> Slo:
    """Read the short form, ``p99=50ms,errors=0.1%``; without ``errors``, no request may fail."""
    limits: dict[float, LatencyLimit] = {}
    error_rate: float | None = None
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise SettingsError(f"--slo: {part.strip()!r} has no '='; {_EXAMPLE}")
        if name == "errors":
            if error_rate is not None:
                raise SettingsError("--slo: errors is given twice")
            error_rate = _share(value)
            continue
        limit = LatencyLimit(_percent(name), _milliseconds(name, value))
        if limit.percent in limits:
            raise SettingsError(f"--slo: {name} is given twice")
        limits[limit.percent] = limit
    if not limits:
        raise SettingsError(f"--slo: give at least one latency; {_EXAMPLE}")
    slo = Slo(tuple(sorted(limits.values())), error_rate or 0.0)
    _check_order(slo, "--slo")
    return slo


def _percent(name: str) -> float:
    match = _PERCENTILE.fullmatch(name)
    if match is None or float(match[1]) == 0:
        raise SettingsError(
            f"--slo: {name!r} is neither a percentile (p50, p99, p99.9) nor errors; {_EXAMPLE}"
        )
    return float(match[1])


def _milliseconds(name: str, value: str) -> float:
    match = _DURATION.fullmatch(value)
    if match is None or float(match[1]) == 0:
        raise SettingsError(
            f"--slo: {name}={value}: {value!r} is no time; write it with its unit, us, ms or s "
            f"({name}=50ms)"
        )
    return float(match[1]) * _MS[match[2]]


def _share(value: str) -> float:
    match = _SHARE.fullmatch(value)
    if match is None or float(match[1]) > 100:  # noqa: PLR2004 - per cent
        raise SettingsError(f"--slo: errors={value}: write a share of 0% to 100% (errors=0.1%)")
    return float(match[1]) / 100


def _check_order(slo: Slo, place: str) -> None:
    """Raise ``SettingsError`` if a higher percentile has a lower limit."""
    for low, high in pairwise(slo.latencies):
        if low.most_ms > high.most_ms:
            raise SettingsError(
                f"{place}: {low} allows more than {high}, the higher percentile: were they swapped?"
            )


def read_slo(text: str, kinds: Collection[str]) -> SloSet:
    """Read a YAML file with limits for all requests or ``kinds`` of them, or the short form."""
    path = Path(text)
    if "=" in text and not path.exists():
        return SloSet(parse_slo(text))
    try:
        table = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"--slo {path} cannot be read: {error.strerror}; name a file such as "
            "loadtest/slo.yaml, or write limits such as p99=50ms,errors=0.1%"
        ) from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return _from_table(table, path, kinds)


class _LimitsSection(StrictModel):
    model_config = ConfigDict(strict=True)

    p50_ms: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    p95_ms: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    p99_ms: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    error_rate: float | None = Field(default=None, ge=0, le=1)
    throughput: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    fallback_rate: float | None = Field(default=None, ge=0, le=1)

    def slo(self) -> Slo:
        limits = ((50.0, self.p50_ms), (95.0, self.p95_ms), (99.0, self.p99_ms))
        latencies = tuple(LatencyLimit(percent, most) for percent, most in limits if most)
        return Slo(latencies, self.error_rate, self.throughput, self.fallback_rate)


class _SloFile(StrictModel):
    model_config = ConfigDict(strict=True)

    all: _LimitsSection = _LimitsSection()
    kinds: Mapping[str, _LimitsSection] = {}


def _from_table(table: Any, path: Path, kinds: Collection[str]) -> SloSet:
    if not isinstance(table, dict):
        raise SettingsError(f"{path} must have the sections 'all' and 'kinds', or one of them")
    try:
        file = _SloFile.model_validate(table)
    except ValidationError as error:
        raise SettingsError(f"{path}, {_problem(error)}") from error
    for kind in file.kinds:
        if kind not in kinds:
            raise SettingsError(
                f"{path}, kinds: there is no kind of request {kind!r}; there are "
                f"{', '.join(sorted(kinds))}"
            )
    found = SloSet(file.all.slo(), {kind: part.slo() for kind, part in file.kinds.items()})
    scoped = {ALL: found.every, **{f"kinds.{kind}": one for kind, one in found.kinds.items()}}
    if not any(one != Slo() for one in scoped.values()):
        raise SettingsError(f"{path} sets no limit; the limits are {_names(_LimitsSection)}")
    for scope, slo in scoped.items():
        _check_order(slo, f"{path}, {scope}")
    return found


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        *above, name = first["loc"]
        allowed = _names(_LimitsSection if above else _SloFile)
        where = ".".join(map(str, above)) or "top level"
        return f"{where}: unknown field {name!r}; allowed are {allowed}"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}, not {first['input']!r}"


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _in_unit(name: str, value: float) -> str:
    """Return the value of ``p99_ms``, a rate or ``throughput`` with its unit."""
    if name.endswith("_ms"):
        return "infinite" if value == float("inf") else f"{value:.1f} ms"
    return f"{value:.2%}" if name.endswith("_rate") else f"{value:.2f}/s"
