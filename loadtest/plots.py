"""The pictures of a run's report: what happened over time, and how late the answers were."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.incidents import Incident
from loadtest.latencies import Latencies
from loadtest.timeline import Timeline, Totals
from newshelf.evaluation.figures.canvas import COLOURS, MUTED, new_figure, save

__all__ = [
    "draw_errors",
    "draw_latency",
    "draw_percentile_curves",
    "draw_percentiles",
    "draw_throughput",
    "log_ms",
    "over_seconds",
    "quiet_axes",
]

_WIDTH, _HEIGHT = 9.6, 3.4
_INCIDENT = "#d55e00"
_LATENCY_LINES: Sequence[tuple[str, Callable[[Latencies], float], str]] = (
    ("max", lambda one: one.max_ms, MUTED),
    ("p99", lambda one: one.percentile_ms(99), COLOURS[1]),
    ("p95", lambda one: one.percentile_ms(95), COLOURS[4]),
    ("p50", lambda one: one.percentile_ms(50), COLOURS[0]),
)
_MARKED_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def draw_latency(timeline: Timeline, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: p50, p95, p99 and the maximum of every second, incidents marked."""
    figure, axes = _over_time(timeline, found)
    seconds = timeline.by_second()
    for name, value, colour in _LATENCY_LINES:
        line = [value(one.latency) if one.answered else np.nan for one in seconds]
        axes.plot(
            _middles(seconds), line, color=colour, label=name, linewidth=1.4,
            marker=_mark(seconds),
        )  # fmt: skip
    log_ms(axes)
    axes.set_ylabel("latency, ms")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def draw_throughput(timeline: Timeline, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: what was meant to be sent, what was sent, and what was answered rightly."""
    figure, axes = _over_time(timeline, found)
    seconds = timeline.by_second()
    x = _middles(seconds)
    lines = (
        ("meant to be sent", [one.intended for one in seconds], MUTED, 4.0),
        ("sent", [one.intended - one.dropped for one in seconds], COLOURS[4], 2.0),
        ("answered rightly", [one.answered for one in seconds], COLOURS[0], 1.4),
    )
    for name, line, colour, width in lines:
        axes.plot(x, line, color=colour, label=name, linewidth=width, marker=_mark(seconds))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("requests per second")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def draw_errors(timeline: Timeline, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: the requests of each second that failed, by kind of error."""
    figure, axes = _over_time(timeline, found)
    seconds = timeline.by_second()
    names = list(timeline.total().errors)
    series = {name: [one.errors.get(name, 0) for one in seconds] for name in names}
    if any(one.dropped for one in seconds):
        series["never sent"] = [one.dropped for one in seconds]
    floor = np.zeros(len(seconds))
    for number, (name, counts) in enumerate(series.items()):
        axes.bar(
            _middles(seconds), counts, width=1.0, bottom=floor, label=name,
            color=COLOURS[number % len(COLOURS)],
        )  # fmt: skip
        floor = floor + np.array(counts)
    axes.set_ylabel("requests per second")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def draw_percentiles(timeline: Timeline, path: Path) -> None:
    """Write a PNG: latency by percentile of all requests, and of each kind."""
    kinds = timeline.kinds if len(timeline.kinds) > 1 else []
    curves = {"all": timeline.total()} | {kind: timeline.total(kind) for kind in kinds}
    draw_percentile_curves(curves, path)


def draw_percentile_curves(curves: Mapping[str, Totals], path: Path) -> None:
    """Write a PNG: latency by percentile, on the logarithmic scale of HdrHistogram's plots.

    The scale is that of 1 / (1 - q): each step to the right is a request ten times as rare.

    Args:
        curves: by name; one called ``all`` is drawn in black.
        path: of the PNG.
    """
    figure = new_figure(_WIDTH, 3.8)
    axes = figure.add_subplot()
    most = 10.0
    for number, (name, total) in enumerate(curves.items()):
        if not total.answered:
            continue
        share, milliseconds = total.latency.curve()
        # Nothing is known beyond the rarest request: its share is one of all.
        rarity = 1 / np.maximum(1 - share, 1 / total.answered)
        most = max(most, float(rarity[-1]))
        axes.plot(
            np.concatenate([[1.0], rarity]),
            np.concatenate([milliseconds[:1], milliseconds]),
            label=name,
            color="#222222" if name == "all" else COLOURS[number % len(COLOURS)],
            linewidth=2.0 if name == "all" else 1.2,
            drawstyle="steps-post",
        )
    axes.set_xscale("log")
    marks = [share for share in _MARKED_SHARES if 1 / (1 - share) <= most * 1.01]
    axes.set_xticks([1 / (1 - share) for share in marks], [f"{100 * share:.5g}" for share in marks])
    axes.minorticks_off()
    axes.set_xlim(1, most * 1.05)
    log_ms(axes)
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency, ms")
    quiet_axes(axes)
    if axes.lines:
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def quiet_axes(axes: Axes) -> None:
    """Two spines, and a grid that is hardly seen."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e8ec", linewidth=0.8)
    axes.set_axisbelow(True)


def over_seconds(axes: Axes, seconds: float, found: Sequence[Incident]) -> None:
    """An x axis of the run's seconds, on which its incidents are marked."""
    for number, one in enumerate(found):
        axes.axvspan(
            one.start_s, one.end_s, color=_INCIDENT, alpha=0.12, linewidth=0,
            label="incident" if number == 0 else None,
        )  # fmt: skip
    axes.set_xlim(0, seconds)
    axes.set_xlabel("seconds since the start")
    quiet_axes(axes)


def _over_time(timeline: Timeline, found: Sequence[Incident]) -> tuple[Figure, Axes]:
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.add_subplot()
    over_seconds(axes, timeline.length, found)
    return figure, axes


def _middles(seconds: Sequence[Totals]) -> list[float]:
    return [at + 0.5 for at in range(len(seconds))]


def _mark(seconds: Sequence[Totals]) -> str:
    """A second that stands alone is no line, and would not be seen."""
    return "." if len(seconds) <= 120 else ""  # noqa: PLR2004 - more would run together


def log_ms(axes: Axes) -> None:
    """A logarithmic y axis of milliseconds whose marks are plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = axes.get_ylim()
    if high / low < 30:  # noqa: PLR2004 - within some ten times, powers of ten mark too little
        axes.yaxis.set_minor_formatter("{x:g}")
    else:
        axes.yaxis.set_minor_formatter("")
