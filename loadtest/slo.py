"""Limits of a load test, from a file such as ``loadtest/slo.yaml`` or in short form; verdicts."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.tuning.slo import LatencyLimit, Slo, check_order, parse_slo
from newshelf.errors import SettingsError
from newshelf.files import StrictModel

ALL = "all"
"""The scope of limits for all requests together."""


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


def judge(
    slo: Slo,
    scope: str,
    percentile_ms: Callable[[float], float] | None,
    error_rate: float = 0.0,
    throughput: float = 0.0,
    fallback_rate: float = 0.0,
) -> list[SloVerdict]:
    """Check measured values; ``percentile_ms`` is None if no such request was sent."""
    limits: list[tuple[str, float, float]] = []
    measure = percentile_ms or (lambda _percent: 0.0)
    for limit in slo.latencies:
        limits.append((f"p{limit.percent:g}_ms", limit.most_ms, measure(limit.percent)))
    if slo.error_rate is not None:
        limits.append(("error_rate", slo.error_rate, error_rate))
    if slo.fallback_rate is not None:
        limits.append(("fallback_rate", slo.fallback_rate, fallback_rate))
    if slo.throughput is not None:
        limits.append(("throughput", slo.throughput, throughput))
    return [
        SloVerdict(scope, name, limit, None if percentile_ms is None else measured)
        for name, limit, measured in limits
    ]


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
        check_order(slo, f"{path}, {scope}")
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
