"""Service-level objectives: limits of latency, error rate and throughput.

The short form is ``p99=50ms,errors=0.1%``; ``loadtest.slo`` reads files, and gives verdicts.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from loadtest.tuning.load import LoadResult
from newshelf.errors import SettingsError

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

    def missed(self, result: LoadResult) -> list[str]:
        """Return the latencies and errors that exceed the limits, in words."""
        missed = [
            f"p{limit.percent:g} is {result.percentile_ms(limit.percent):.1f} ms"
            for limit in self.latencies
            if result.percentile_ms(limit.percent) > limit.most_ms
        ]
        if self.error_rate is not None and result.failed_share > self.error_rate:
            missed.append(f"{result.failed_share:.2%} of the requests failed")
        return missed

    def __str__(self) -> str:
        errors = f",errors={self.error_rate * 100:g}%" if self.error_rate else ""
        return ",".join(map(str, self.latencies)) + errors


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
    check_order(slo, "--slo")
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


def check_order(slo: Slo, place: str) -> None:
    """Raise ``SettingsError`` if a higher percentile has a lower limit."""
    for low, high in pairwise(slo.latencies):
        if low.most_ms > high.most_ms:
            raise SettingsError(
                f"{place}: {low} allows more than {high}, the higher percentile: were they swapped?"
            )
