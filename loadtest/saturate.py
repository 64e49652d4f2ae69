"""Search for the greatest Poisson rate that meets a latency limit.

MLPerf Inference defines the Server scenario like this (Reddi et al. 2020, section III.C):
requests arrive as a Poisson process, and the result is the greatest rate at which the
percentile stays within the limit. The search doubles the rate, bisects, and confirms the result
in fresh runs. Runs are shorter than MLPerf's 270,336 requests, so a run that fails is repeated,
and the majority decides.

The caller measures; the search itself sends nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from loadtest.plots import draw_rates
from loadtest.record import RunRecord, write_record
from loadtest.report import (
    PLOTS,
    check_run,
    milliseconds,
    run_facts,
    run_sections,
    write_page,
)
from loadtest.slo import LatencyLimit, Slo, SloSet
from loadtest.timeline import Timeline
from newshelf.errors import SettingsError
from newshelf.files import write_json
from newshelf.report.page import Cell, Page, Picture, ReportTable, Section, print_table

Measure = Callable[[float, float], RunRecord]
"""Runs a Poisson load at a rate (requests/s) for some seconds."""
Purpose = Literal["bracket", "bisect", "confirm"]
_BRACKET_SHARE = 1 / 3
_LEAST_RATE = 0.5
"""Lower bound of the search in requests/s."""
_VOTES = 3
"""A rate that failed is measured again until one result has the majority of these runs."""
_CONFIRMATIONS = 3
"""Fresh runs of the result, of which the majority must meet the goal."""
_DELIVERED = 0.99
"""Minimum share of the arrivals that must be sent for a run to count as one at its rate."""
_RESULT, _RECORD, _PLOT = "saturation.json", "record.json", "rates.png"


@dataclass(frozen=True)
class RateGoal:
    """Limits that a rate must meet."""

    latency: LatencyLimit
    error_rate: float = 0.001
    """Maximum, between 0 and 1."""


@dataclass(frozen=True)
class RateSearch:
    """Settings of the search.

    Raises:
        SettingsError: a value is out of range.
    """

    first_rate: float
    """Requests/s of the first run."""
    seconds: float = 60.0
    """Length of each run; those of the doubling, which need less precision, take a third."""
    resolution: float = 0.03
    """Share of the rate at which the bisection ends, and by which an unconfirmed rate is
    lowered."""
    most_rate: float = 20_000.0
    """Upper bound of the search in requests/s."""

    def __post_init__(self) -> None:
        if not _LEAST_RATE <= self.first_rate <= self.most_rate:
            raise SettingsError(
                f"the first rate, {self.first_rate:g}/s, must be between {_LEAST_RATE:g} and "
                f"{self.most_rate:g}/s"
            )
        if self.seconds <= 0:
            raise SettingsError(f"runs of {self.seconds:g} s are too short")
        if not 0.001 <= self.resolution <= 0.5:  # noqa: PLR2004 - shares of the rate
            raise SettingsError(f"the resolution, {self.resolution:g}, must be in 0.001 to 0.5")


@dataclass(frozen=True)
class Trial:
    """One run at one rate."""

    rate: float
    """Intended requests/s."""
    purpose: Purpose
    latency_ms: float
    """At the goal's percentile."""
    error_rate: float
    throughput: float
    """Right responses per second."""
    kept: bool
    generator: str
    """Why the generator, not the server, missed the goal; empty if it did not."""


@dataclass(frozen=True)
class Saturation:
    """Result of a search."""

    goal: RateGoal
    rate: float | None
    """Requests/s; None if not even the lowest rate meets the goal."""
    limited_by: Literal["server", "generator", "search"]
    """What limits the rate; ``search``: ``most_rate`` meets the goal."""
    reason: str
    """The limit in a sentence."""
    trials: tuple[Trial, ...] = field(repr=False)
    """In the order of the runs."""

    @property
    def confirmed(self) -> tuple[Trial, ...]:
        """The confirming runs of the rate."""
        return tuple(
            one for one in self.trials if one.purpose == "confirm" and one.rate == self.rate
        )


def saturate(
    measure: Measure,
    goal: RateGoal,
    search: RateSearch,
    report: Callable[[Trial], None] = lambda _trial: None,
) -> Saturation:
    """Search for the greatest rate that meets ``goal``.

    ``report`` is called with each run as it ends.
    """
    return _Searcher(measure, goal, search, report).run()


def trial(record: RunRecord, rate: float, purpose: Purpose, goal: RateGoal) -> Trial:
    """Check one run.

    Latency counts from the intended start, so a late generator makes it longer, and a goal that
    is met is met despite that. The generator is the reason for a missed goal if the server's
    responses, counted from sending, would have met it.
    """
    whole = Timeline.of(record).total()
    percent, most_ms = goal.latency.percent, goal.latency.most_ms
    latency = whole.latency.percentile_ms(percent)
    sent = whole.intended - whole.dropped
    all_sent = sent >= _DELIVERED * whole.intended
    kept = latency <= most_ms and whole.error_rate <= goal.error_rate and all_sent
    server_kept = whole.service.percentile_ms(percent) <= most_ms
    return Trial(
        rate=rate,
        purpose=purpose,
        latency_ms=latency,
        error_rate=whole.error_rate,
        throughput=whole.throughput,
        kept=kept,
        generator=record.generator.limited if not kept and server_kept else "",
    )


class _Searcher:
    """State of one search."""

    def __init__(
        self, measure: Measure, goal: RateGoal, search: RateSearch, report: Callable[[Trial], None]
    ) -> None:
        self._measure = measure
        self._goal = goal
        self._search = search
        self._report = report
        self._trials: list[Trial] = []

    def run(self) -> Saturation:
        kept, broken = self._bracket()
        if kept is None:
            return self._found(None, broken)
        if broken is not None:
            kept, broken = self._bisect(kept, broken)
        return self._found(*self._confirm(kept, broken))

    def _bracket(self) -> tuple[float | None, float | None]:
        """Return a rate that meets the goal, and twice that rate, which does not."""
        search, rate = self._search, self._search.first_rate
        if self._keeps(rate, "bracket"):
            while rate < search.most_rate:
                further = min(2 * rate, search.most_rate)
                if not self._keeps(further, "bracket"):
                    return rate, further
                rate = further
            return rate, None
        while rate > _LEAST_RATE:
            lower = max(rate / 2, _LEAST_RATE)
            if self._keeps(lower, "bracket"):
                return lower, rate
            rate = lower
        return None, rate

    def _bisect(self, kept: float, broken: float) -> tuple[float, float]:
        while broken / kept > 1 + self._search.resolution:
            middle = math.sqrt(kept * broken)
            if self._keeps(middle, "bisect"):
                kept = middle
            else:
                broken = middle
        return kept, broken

    def _confirm(self, rate: float, broken: float | None) -> tuple[float | None, float | None]:
        """Step down until most of the fresh runs at a rate meet the goal."""
        while True:
            runs = [self._run(rate, "confirm") for _ in range(_CONFIRMATIONS)]
            if 2 * sum(one.kept for one in runs) > len(runs):
                return rate, broken
            broken, rate = rate, rate / (1 + self._search.resolution)
            if rate < _LEAST_RATE:
                return None, broken

    def _keeps(self, rate: float, purpose: Purpose) -> bool:
        """Return the majority of the votes; while doubling, one good run is enough."""
        enough = 1 if purpose == "bracket" else _VOTES // 2 + 1
        runs: list[Trial] = []
        while len(runs) < _VOTES:
            runs.append(self._run(rate, purpose))
            kept = sum(one.kept for one in runs)
            if kept >= enough or len(runs) - kept > _VOTES // 2:
                break
        return kept >= enough

    def _run(self, rate: float, purpose: Purpose) -> Trial:
        share = _BRACKET_SHARE if purpose == "bracket" else 1.0
        record = self._measure(rate, self._search.seconds * share)
        done = trial(record, rate, purpose, self._goal)
        self._trials.append(done)
        self._report(done)
        return done

    def _found(self, rate: float | None, broken: float | None) -> Saturation:
        limited_by, reason = self._why(broken)
        return Saturation(self._goal, rate, limited_by, reason, tuple(self._trials))

    def _why(self, broken: float | None) -> tuple[Literal["server", "generator", "search"], str]:
        if broken is None:
            most = self._search.most_rate
            return "search", f"{most:g}/s, the greatest rate of the search, meets the goal"
        failed = [one for one in self._trials if one.rate == broken and not one.kept]
        by_generator = [one for one in failed if one.generator]
        if 2 * len(by_generator) > len(failed):
            return "generator", f"at {broken:.1f}/s: {by_generator[-1].generator}"
        return "server", f"at {broken:.1f}/s: {_broken(failed, self._goal)}"


def _broken(failed: Sequence[Trial], goal: RateGoal) -> str:
    of_server = [one for one in failed if not one.generator] or list(failed)
    worst = max(of_server, key=lambda one: (one.latency_ms, one.error_rate))
    latency = goal.latency
    if worst.latency_ms > latency.most_ms:
        measured = f"{worst.latency_ms:.1f} ms" if math.isfinite(worst.latency_ms) else "infinite"
        return f"p{latency.percent:g} is {measured}, above {latency.most_ms:g} ms"
    if worst.error_rate > goal.error_rate:
        return f"{worst.error_rate:.2%} of the requests failed, above {goal.error_rate:.2%}"
    return "too many arrivals were dropped"


def trial_text(trial: Trial, goal: RateGoal) -> str:
    """Return one run as a line."""
    mark = "✓" if trial.kept else "·"
    errors = f", {trial.error_rate:.2%} failed" if trial.error_rate else ""
    generator = f" ({trial.generator})" if trial.generator else ""
    latency = milliseconds(trial.latency_ms)
    return (
        f"{mark} {trial.rate:.1f}/s: p{goal.latency.percent:g} {latency} ms{errors}, "
        f"{trial.purpose}{generator}"
    )


def sentence(found: Saturation) -> str:
    """Return the result and what limits it."""
    limit = f"p{found.goal.latency.percent:g} ≤ {found.goal.latency.most_ms:g} ms"
    if found.rate is None:
        return f"No rate meets {limit}: {found.reason}."
    result = (
        f"{found.rate:.1f} requests/s is the greatest Poisson rate that meets {limit}, confirmed "
        f"by {sum(one.kept for one in found.confirmed)} of {len(found.confirmed)} runs."
    )
    whose = {
        "server": "The server was the limit",
        "generator": "The generator, not the server, was the limit",
        "search": "No limit was found",
    }
    return f"{result} {whose[found.limited_by]}: {found.reason}."


def print_saturation(found: Saturation, console: Console) -> None:
    """Print all runs and the result."""
    print_table(_table(found), console)
    console.print(sentence(found), markup=False)


def write_saturation(found: Saturation, last: RunRecord, folder: Path) -> Path:
    """Write ``saturation.json``, ``report.html``, plots and the record of the last run.

    Returns:
        The path of the report.
    """
    write_json(folder / _RESULT, {"format": 1, **asdict(found)})
    write_record(last, folder / _RECORD)
    plots = folder / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    runs = {
        name: [(one.throughput, one.latency_ms) for one in found.trials if one.kept is kept]
        for name, kept in (("met", True), ("not met", False))
    }
    draw_rates(runs, found.goal.latency, found.rate, plots / _PLOT)
    goal = found.goal
    section = Section(
        "The greatest rate",
        verdict=sentence(found),
        tables=[_table(found)],
        pictures=[Picture(_PLOT, "Throughput and latency of each run")],
    )
    limits = SloSet(Slo((goal.latency,), goal.error_rate))
    last_run = [
        Section(f"Last run: {one.title}", one.text, one.tables, one.verdict, one.pictures)
        for one in run_sections(check_run(last, limits), plots)
    ]
    page = Page("Load test: saturate", run_facts(last), (), [section, *last_run])
    return write_page(page, folder)


def _table(found: Saturation) -> ReportTable:
    percent = f"p{found.goal.latency.percent:g} ms"
    rows: list[list[Cell | str]] = [
        [
            one.purpose,
            f"{one.rate:.1f}",
            f"{one.throughput:.1f}",
            milliseconds(one.latency_ms),
            f"{one.error_rate:.2%}",
            Cell("met" if one.kept else "not met", one.generator),
        ]
        for one in found.trials
    ]
    header = ("step", "rate, /s", "right responses, /s", percent, "failed", "goal")
    return ReportTable("Runs in order", header, rows)
