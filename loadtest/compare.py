"""RunComparison of two runs: an A/B test of two model versions under the same load.

Mean, percentiles, error rate and, for a closed loop, throughput are compared in blocks of
seconds. Latencies of neighbouring requests and seconds are correlated, because a queue has a
memory, so blocks are the cases, not requests (batch means; Law, *Simulation Modeling and
Analysis*, ch. 9.5). Two runs with the same seed have the same arrivals in the same block, and
most of their effect cancels out in the difference.

Over all metrics together, the probability of finding a difference between two equal versions
is ``ALPHA`` (Holm's correction). Differences below ``LEAST`` never count: two runs of one
version on one machine may differ by as much.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from loadtest.plots import draw_percentile_curves
from loadtest.record import RunRecord
from loadtest.report import PLOTS, milliseconds, write_page
from loadtest.timeline import Timeline, Totals
from newshelf.errors import SettingsError
from newshelf.report.page import Page, Picture, ReportTable, Section, print_table

MIN_BLOCKS = 8
_MOST_BLOCKS = 30
_ANSWERS = 100
"""Responses in a block, so that its 99th percentile is not simply its maximum."""
_MOST_CORRELATION = 0.9
_NOTHING = 1e-12
"""Rounding error of 0."""
ALPHA = 0.01
LEAST = 0.02
"""Smallest difference of a latency or throughput that counts, as a share."""
_LEAST_ERRORS = 0.001
"""Likewise of the error rate, absolute."""
_MAY_DIFFER = frozenset({"seed", "processes", "traffic.via"})
"""Settings that may differ; older records have no ``traffic.via``, and the kinds tell it."""
_TRIMMED = 0.2
"""Share of the blocks that is left out at either end: those with a hiccup of the machine."""
_SECONDS = 0.1
"""Share by which the lengths may differ."""
Word = Literal["better", "worse", "not told apart"]
_PLOT = "percentiles.png"


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences."""

    mean: float
    low: float
    high: float
    """Interval of the mean."""
    p_value: float
    """Of a mean of zero."""
    blocks: int


def block_seconds(first: Timeline, second: Timeline) -> int:
    """Return the seconds of a block: at most 30 blocks, each with 100 responses in both runs.

    Raises:
        SettingsError: the runs are too short for ``MIN_BLOCKS``.
    """
    seconds = math.floor(min(first.record.seconds, second.record.seconds) + 1e-6)
    slower = min(first.total().answered, second.total().answered) / max(seconds, 1)
    wanted = max(math.ceil(seconds / _MOST_BLOCKS), 1)
    filled = math.ceil(_ANSWERS / slower) if slower else wanted
    # Fuller blocks have better percentiles, but too few blocks have no interval.
    length = max(wanted, min(filled, seconds // MIN_BLOCKS))
    if seconds // max(length, 1) < MIN_BLOCKS:
        raise SettingsError(
            f"runs of {seconds} s are too short to compare: measure at least "
            f"{MIN_BLOCKS} s, better a minute or more"
        )
    return length


def mean_difference(
    differences: NDArray[np.float64], level: float, trimmed: float = 0.0
) -> Paired | None:
    """Return Student's t interval of the mean of a series that may be correlated.

    A hiccup of the machine hits few blocks, but hard. With ``trimmed``, that share of the
    members is left out at either end, and the spread is that of the winsorised series (Yuen
    1974)::

        t = mean of the remaining h / (s_w / ((1 - 2 trimmed) √n)), with h - 1 degrees

    The sample counts as ``n (1 - r) / (1 + r)`` independent ones, where r is the correlation of
    neighbours, corrected for its bias in short series (von Storch & Zwiers, *Statistical
    Analysis in Climate Research*, ch. 6.6; Kendall 1954).

    ``differences`` are in order of the blocks; the share ``trimmed`` at either end is below 0.5.

    Returns:
        None with fewer than ``MIN_BLOCKS``.
    """
    count = len(differences)
    if count < MIN_BLOCKS:
        return None
    cut_off = int(trimmed * count)
    order = np.sort(differences)
    mean = float(order[cut_off : count - cut_off].mean())
    kept = np.clip(differences, order[cut_off], order[count - 1 - cut_off])
    spread = float(kept.std(ddof=1)) * count / (count - 2 * cut_off)
    if spread <= _NOTHING * max(abs(mean), 1.0):
        return Paired(mean, mean, mean, float(abs(mean) <= _NOTHING), count)
    ratio = _correlation(kept)
    share = (1 - ratio) / (1 + ratio)
    freedom = max((count - 2 * cut_off) * share - 1, 1.0)
    error = spread / math.sqrt(max(count * share, 2.0))
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Paired(mean, mean - reach, mean + reach, p_value, count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the given order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def _correlation(values: NDArray[np.float64]) -> float:
    """Of neighbours; between 0 and 0.9."""
    centred = values - values.mean()
    count = len(values)
    raw = float((centred[1:] * centred[:-1]).sum() / np.square(centred).sum())
    # Kendall: the estimate is (1 + 4 r) / n too small.
    return min(max((raw * count + 1) / (count - 4), 0.0), _MOST_CORRELATION)


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
    """Difference of B from A, in one metric of one scope."""

    scope: str
    """``all``, or a kind of request."""
    metric: str
    unit: str
    a: float
    b: float
    """Of the whole runs."""
    change: float | None
    """Of a typical block: a share of A's value, or the plain difference of the error rate. None
    without enough blocks in which both runs have responses."""
    interval: tuple[float, float] | None
    """Interval of ``change`` with a confidence of 1 - ``ALPHA``."""
    p_value: float
    """Adjusted for the number of metrics."""
    word: Word


@dataclass(frozen=True)
class RunComparison:
    """Result of comparing two runs."""

    word: Word
    """B relative to A: worse if any metric is worse."""
    overall: tuple[Difference, ...]
    """All requests together: these decide."""
    kinds: Mapping[str, tuple[Difference, ...]]
    """By kind: these show where a difference comes from."""
    blocks: int
    block_seconds: int
    notes: tuple[str, ...]
    """Weaknesses of the comparison."""

    def sentence(self) -> str:
        """Return the verdict and its reasons."""
        apart = [one for one in self.overall if one.word != "not told apart"]
        if not apart:
            return "B and A are not told apart"
        what = ", ".join(f"{one.metric} {_change_text(one)}" for one in apart)
        return f"B is {self.word} than A: {what}"


def compare(first: RunRecord, second: RunRecord) -> RunComparison:
    """Compare the second run, B, with the first, A.

    Raises:
        SettingsError: their loads differ, or they are too short.
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
    return RunComparison(word, overall, found, blocks, length, tuple(_notes(first, second)))


def _differences(
    a: Timeline, b: Timeline, scope: str, kind: str | None, length: int, blocks: int
) -> tuple[Difference, ...]:
    # In an open loop, arrivals determine the throughput; the error rate has the failures.
    is_closed = a.record.loop == "closed"
    metrics = [*_LATENCIES, _ERRORS, *([_THROUGHPUT] if is_closed else [])]
    starts = range(0, blocks * length, length)
    parts = [[one.between(at, at + length, kind) for at in starts] for one in (a, b)]
    wholes = a.total(kind), b.total(kind)
    paired = [_paired(metric, *parts) for metric in metrics]
    # Equal values, such as no errors in either run, are not a test.
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
    # A block without responses has no latency; its requests are in the error rate.
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
    names = sorted((first.settings.keys() | second.settings.keys()) - _MAY_DIFFER)
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
            "the seeds differ, and so do the arrivals: the same seed finds smaller differences"
        )
    for name, record in (("A", first), ("B", second)):
        if record.generator.limited:
            found.append(f"the generator limited {name}: {record.generator.limited}")
    return found


def _change_text(one: Difference) -> str:
    if one.change is None or one.interval is None:
        return "unknown"
    low, high = one.interval
    if one.metric == _ERRORS.name:
        return f"{one.change:+.2%} points ({low:+.2%} to {high:+.2%})"
    return f"{one.change:+.1%} ({low:+.1%} to {high:+.1%})"


def print_comparison(
    found: RunComparison, first: RunRecord, second: RunRecord, console: Console
) -> None:
    """Print the verdict and the differences of all requests and of each kind."""
    for table in _tables(found):
        print_table(table, console)
    for line in [*_facts(first, second), *found.notes]:
        console.print(line, style="dim", markup=False)
    console.print(f"{found.sentence()}.", markup=False)


def write_comparison(
    found: RunComparison, first: RunRecord, second: RunRecord, folder: Path
) -> Path:
    """Write ``report.html`` with the tables and both percentile curves.

    Returns:
        Its path.
    """
    plots = folder / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    totals = {name: Timeline.of(one).total() for name, one in (("A", first), ("B", second))}
    draw_percentile_curves(totals, plots / _PLOT)
    section = Section(
        "Verdict",
        text=" ".join(found.notes),
        verdict=f"{found.sentence()}.",
        tables=_tables(found),
        pictures=[Picture(_PLOT, "Latency by percentile, all requests together")],
    )
    page = Page("Load test: comparison of A and B", _facts(first, second), (), [section])
    return write_page(page, folder)


def _tables(found: RunComparison) -> list[ReportTable]:
    note = (
        f"Change: in a typical one of {found.blocks} blocks of {found.block_seconds} s, with its "
        f"{1 - ALPHA:.0%} interval. p is adjusted for the number of metrics (Holm)."
    )
    tables = [_table("All requests", found.overall, note)]
    if len(found.kinds) > 1:
        tables += [_table(kind, rows, "") for kind, rows in found.kinds.items()]
    return tables


def _table(heading: str, differences: tuple[Difference, ...], note: str) -> ReportTable:
    header = ("metric", "A", "B", "change", f"{1 - ALPHA:.0%} interval", "p", "B is")
    return ReportTable(heading, header, [_row(one) for one in differences], note=note)


def _row(one: Difference) -> list[str]:
    change, interval = "–", "–"
    if one.change is not None and one.interval is not None:
        change = f"{one.change:+.2%}"
        interval = f"{one.interval[0]:+.2%} to {one.interval[1]:+.2%}"
    shown = [_figure(one, value) for value in (one.a, one.b)]
    name = f"{one.metric}, {one.unit}" if one.unit else one.metric
    p_value = f"{one.p_value:.3f}" if one.p_value >= 0.001 else "< 0.001"  # noqa: PLR2004
    return [name, *shown, change, interval, p_value, one.word]


def _figure(one: Difference, value: float) -> str:
    if not one.unit:
        return f"{value:.2%}"
    return milliseconds(value) if one.unit == "ms" else f"{value:.1f}"


def _facts(first: RunRecord, second: RunRecord) -> list[str]:
    return [
        f"{name}: {one.started_at:%Y-%m-%d %H:%M:%S} UTC, {_models(one)}, {one.command}"
        for name, one in (("A", first), ("B", second))
    ]


def _models(record: RunRecord) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.models.items()) or "no model"
