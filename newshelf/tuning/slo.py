"""What a service promises: the latencies and the share of errors that are not exceeded."""

import re
from dataclasses import dataclass
from itertools import pairwise

from newshelf.errors import SettingsError
from newshelf.tuning.load import LoadResult

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
    """All of it must hold."""

    latencies: tuple[LatencyLimit, ...]
    """At least one, the lowest percentile first."""
    failed_share: float = 0.0
    """Of all requests, between 0 and 1."""

    @property
    def strictest(self) -> LatencyLimit:
        """Of the highest percentile: the one that plots and comparisons show."""
        return self.latencies[-1]

    def missed(self, result: LoadResult) -> list[str]:
        """What ``result`` exceeds, told in words; empty when all holds."""
        missed = [
            f"p{limit.percent:g} is {result.percentile_ms(limit.percent):.1f} ms"
            for limit in self.latencies
            if result.percentile_ms(limit.percent) > limit.most_ms
        ]
        if result.failed_share > self.failed_share:
            missed.append(f"{result.failed_share:.2%} of the requests failed")
        return missed

    def __str__(self) -> str:
        errors = f",errors={self.failed_share * 100:g}%" if self.failed_share else ""
        return ",".join(map(str, self.latencies)) + errors


def parse_slo(text: str) -> Slo:
    """Read ``p99=50ms,p50=20ms,errors=0.1%``.

    Without ``errors``, no request may fail.

    Raises:
        SettingsError: with the part that cannot be read, and how to write it.
    """
    limits: dict[float, LatencyLimit] = {}
    failed_share: float | None = None
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise SettingsError(f"--slo: {part.strip()!r} has no '='; {_EXAMPLE}")
        if name == "errors":
            if failed_share is not None:
                raise SettingsError("--slo: errors is given twice")
            failed_share = _share(value)
            continue
        limit = LatencyLimit(_percent(name), _milliseconds(name, value))
        if limit.percent in limits:
            raise SettingsError(f"--slo: {name} is given twice")
        limits[limit.percent] = limit
    if not limits:
        raise SettingsError(f"--slo: give at least one latency; {_EXAMPLE}")
    slo = Slo(tuple(sorted(limits.values())), failed_share or 0.0)
    _check_order(slo)
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


def _check_order(slo: Slo) -> None:
    for low, high in pairwise(slo.latencies):
        if low.most_ms > high.most_ms:
            raise SettingsError(
                f"--slo: {low} allows more than {high}, which is the higher percentile: "
                "were they exchanged?"
            )
