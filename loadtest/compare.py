"""Whether one run differs from another: for an A/B pair of model versions.

Mean, percentiles, errors and, of clients that wait, throughput are compared block by block
(``loadtest.blocks``). All of them together decide with a chance of ``ALPHA`` to tell two equal
versions apart (Holm's correction); differences below ``LEAST`` are never told apart, since two
runs of one version on one machine may differ by as much.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from loadtest.blocks import Paired, block_seconds, cut, holm, mean_difference
from loadtest.record import RunRecord
from loadtest.timeline import Timeline, Totals
from newshelf.errors import SettingsError

__all__ = ["ALPHA", "LEAST", "Comparison", "Difference", "compare"]

ALPHA = 0.01
LEAST = 0.02
"""Of a latency or a throughput, as a share."""
_LEAST_ERRORS = 0.001
"""Likewise of the error rate, as it is."""
_UNLIKE = frozenset({"seed", "processes"})
"""Settings that may differ."""
_TRIMMED = 0.2
"""Of the blocks, at either end: those that a hiccup of the machine hit."""
_SECONDS = 0.1
"""By which share the lengths may differ."""

Word = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True)
class _Metric:
    name: str
    unit: str
    value: Callable[[Totals], float]
    more_is_better: bool = False
    as_ratio: bool = True


_LATENCIES = (
    _Metric("mean", "ms", lambda part: part.latency.mean_ms),
    _Metric("p50", "ms", lambda part: part.latency.percentile_ms(50)),
    _Metric("p95", "ms", lambda part: part.latency.percentile_ms(95)),
    _Metric("p99", "ms", lambda part: part.latency.percentile_ms(99)),
)
_ERRORS = _Metric("error rate", "", lambda part: part.error_rate, as_ratio=False)
_THROUGHPUT = _Metric("throughput", "/s", lambda part: part.throughput, more_is_better=True)


@dataclass(frozen=True)
class Difference:
    """B against A, in one metric of one scope."""

    scope: str
    """``all``, or a kind of request."""
    metric: str
    unit: str
    a: float
    b: float
    """Of the whole runs."""
    change: float | None
    """Of a typical block: a share of A's, or of the error rate the plain difference. None
    without enough blocks in which both runs had answers."""
    interval: tuple[float, float] | None
    """Of ``change``, with a confidence of 1 - ``ALPHA``."""
    p_value: float
    """Adjusted for the number of metrics beside it."""
    word: Word


@dataclass(frozen=True)
class Comparison:
    """What is to be said of two runs."""

    word: Word
    """B relative to A: worse when a metric is worse, whatever else is better."""
    overall: tuple[Difference, ...]
    """Of all requests together: these decide."""
    kinds: Mapping[str, tuple[Difference, ...]]
    """Of each kind: these show where a difference comes from."""
    blocks: int
    block_seconds: int
    notes: tuple[str, ...]
    """What weakens the comparison."""

    def sentence(self) -> str:
        """The verdict, and what led to it."""
        apart = [one for one in self.overall if one.word != "not told apart"]
        if not apart:
            return "B and A are not told apart"
        what = ", ".join(f"{one.metric} {_told(one)}" for one in apart)
        return f"B is {self.word} than A: {what}"


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """Hold the second run, B, against the first one, A.

    Raises:
        SettingsError: they were not put under the same load, or are too short.
    """
    _require_alike(first, second)
    a, b = Timeline.of(first), Timeline.of(second)
    length = block_seconds(a, b)
    blocks = min(int(one.record.seconds + 1e-6) for one in (a, b)) // length
    overall = _differences(a, b, "all", None, length, blocks)
    found = {kind: _differences(a, b, kind, kind, length, blocks) for kind in a.kinds}
    words = {one.word for one in overall}
    word: Word = (
        "worse" if "worse" in words else "better" if "better" in words else "not told apart"
    )
    return Comparison(word, overall, found, blocks, length, tuple(_notes(first, second)))


def _differences(
    a: Timeline, b: Timeline, scope: str, kind: str | None, length: int, blocks: int
) -> tuple[Difference, ...]:
    # With an open loop, the arrivals set the throughput; what fails is in the error rate.
    waits = a.record.loop == "closed"
    metrics = [*_LATENCIES, _ERRORS, *([_THROUGHPUT] if waits else [])]
    parts = cut(a, length, blocks, kind), cut(b, length, blocks, kind)
    wholes = a.total(kind), b.total(kind)
    paired = [_paired(metric, *parts) for metric in metrics]
    # What is the same in both, as no errors are, is nothing that chance could tell apart.
    tested = [one.p_value for one in paired if one is not None and one.p_value < 1]
    holms = iter(holm(tested))
    adjusted = [next(holms) if one is not None and one.p_value < 1 else 1.0 for one in paired]
    return tuple(
        _difference(scope, metric, wholes, one, p_value)
        for metric, one, p_value in zip(metrics, paired, adjusted, strict=True)
    )


def _paired(metric: _Metric, first: Sequence[Totals], second: Sequence[Totals]) -> Paired | None:
    values = np.array(
        [[metric.value(one), metric.value(other)] for one, other in zip(first, second, strict=True)]
    )
    if not metric.as_ratio:
        return mean_difference(values[:, 1] - values[:, 0], 1 - ALPHA)
    # A block without an answer has no latency; its requests are in the error rate.
    usable = values[np.isfinite(values).all(axis=1) & (values > 0).all(axis=1)]
    return mean_difference(np.log(usable[:, 1] / usable[:, 0]), 1 - ALPHA, _TRIMMED)


def _difference(
    scope: str, metric: _Metric, wholes: tuple[Totals, Totals], paired: Paired | None, p: float
) -> Difference:
    a, b = (metric.value(one) for one in wholes)
    none = Difference(scope, metric.name, metric.unit, a, b, None, None, p, "not told apart")
    if paired is None:
        return none
    change, low, high = paired.mean, paired.low, paired.high
    if metric.as_ratio:
        change, low, high = (float(np.expm1(value)) for value in (change, low, high))
    least = LEAST if metric.as_ratio else _LEAST_ERRORS
    word: Word = "not told apart"
    if p < ALPHA and abs(change) >= least:
        word = "better" if (change > 0) == metric.more_is_better else "worse"
    return replace(none, change=change, interval=(low, high), word=word)


def _require_alike(first: RunRecord, second: RunRecord) -> None:
    for name, a, b in _conditions(first, second):
        if a != b:
            raise SettingsError(
                f"the runs cannot be compared: {name} is {a!r} in A and {b!r} in B; measure both "
                "with the same options"
            )
    if abs(first.seconds - second.seconds) > _SECONDS * max(first.seconds, second.seconds):
        raise SettingsError(
            f"the runs cannot be compared: A took {first.seconds:g} s and B {second.seconds:g} s"
        )


def _conditions(first: RunRecord, second: RunRecord) -> list[tuple[str, object, object]]:
    plain = [(name, getattr(first, name), getattr(second, name)) for name in ("scenario", "loop")]
    kinds = [("the kinds of request", ", ".join(first.kinds()), ", ".join(second.kinds()))]
    names = sorted((first.settings.keys() | second.settings.keys()) - _UNLIKE)
    return [
        *plain,
        *kinds,
        *((f"the setting {name}", first.settings.get(name), second.settings.get(name))
          for name in names),
    ]  # fmt: skip


def _notes(first: RunRecord, second: RunRecord) -> list[str]:
    found = []
    if first.settings.get("seed") != second.settings.get("seed"):
        found.append(
            "the seeds differ, so the arrivals do, too: the same seed finds smaller differences"
        )
    for name, record in (("A", first), ("B", second)):
        if record.generator.limited:
            found.append(f"the generator limited {name}: {record.generator.limited}")
    return found


def _told(one: Difference) -> str:
    if one.change is None or one.interval is None:
        return "unknown"
    low, high = one.interval
    if one.metric == _ERRORS.name:
        return f"{one.change:+.2%} points ({low:+.2%} to {high:+.2%})"
    return f"{one.change:+.1%} ({low:+.1%} to {high:+.1%})"
