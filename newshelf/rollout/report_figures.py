"""The pictures of a rollout's report."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from matplotlib.axes import Axes

from newshelf.evaluation.figures.canvas import COLOURS, MUTED, new_figure, save
from newshelf.rollout.history import Moment, Stretch
from newshelf.rollout.reasons import MOST_TOLD
from newshelf.rollout.results import MetricResult

__all__ = ["draw_metric", "draw_shares"]

_CONTROL, _CHALLENGER = COLOURS[0], COLOURS[1]
_WIDTH_IN = 9.5
_ROOM = 1.25
"""Of the picture's height to what is known at the end."""
_TITLES = 12
"""That have room side by side."""
_UNITS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (120.0, 60.0, "minutes"))
"""From how many seconds on, how many seconds, and what it is called."""


def draw_shares(stretches: Sequence[Stretch], path: Path) -> None:
    """Write a PNG: the share of the units of each variant over time.

    Args:
        stretches: of the whole rollout, in order.
        path: of the PNG.
    """
    start = stretches[0].begins
    scale_s, unit = _time_unit((stretches[-1].ends - start).total_seconds())
    times = [(one.begins - start).total_seconds() / scale_s for one in stretches]
    times.append((stretches[-1].ends - start).total_seconds() / scale_s)
    figure = new_figure(_WIDTH_IN, 3.4)
    axes = figure.add_subplot()
    # The last stretch is drawn to its end.
    control, challenger, default = (
        [getattr(one, name) for one in (*stretches, stretches[-1])]
        for name in ("control", "challenger", "default")
    )
    axes.stackplot(
        times,
        challenger,
        default,
        control,
        step="post",
        labels=["challenger", "not counted", "control"],
        colors=[_CHALLENGER, MUTED, _CONTROL],
        alpha=0.85,
    )
    for time, one in zip(times, stretches, strict=False):
        axes.axvline(time, color="white", linewidth=0.8)
        _title(axes, one, time, times[-1] * scale_s)
    axes.set_xlim(0, max(times[-1], 1e-9))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"{unit} since the start")
    axes.set_ylabel("share of the units")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def draw_metric(
    name: str, moments: Sequence[Moment], stretches: Sequence[Stretch], path: Path
) -> bool:
    """Write a PNG: the effect with its confidence sequence at every look that knew it.

    Args:
        name: of the success metric.
        moments: looks with an analysis, in order.
        stretches: of the whole rollout, whose beginnings are marked.
        path: of the PNG.

    Returns:
        False when no look knew it: nothing was written.
    """
    if not moments:
        return False
    # From the first request that was split on: before it there is nothing to know.
    start = next((one.begins for one in stretches if one.control), stretches[0].begins)
    end_s = (moments[-1].at - start).total_seconds()
    scale_s, unit = _time_unit(end_s)
    known = [
        (_since(start, moment.at, scale_s), result)
        for moment in moments
        for result in moment.analysis.metrics
        if result.metric == name and math.isfinite(result.effect)
    ]
    if not known:
        return False
    figure = new_figure(_WIDTH_IN, 3.4)
    axes = figure.add_subplot()
    times = [time for time, _ in known]
    results = [result for _, result in known]
    axes.fill_between(
        times,
        [one.low for one in results],
        [min(one.high, 2 * MOST_TOLD) for one in results],
        color=_CHALLENGER,
        alpha=0.18,
        linewidth=0,
        label="confidence sequence",
    )
    axes.plot(times, [one.effect for one in results], color=_CHALLENGER, label="effect")
    if len(times) == 1:
        only = results[0]
        axes.vlines(
            times,
            only.low,
            min(only.high, 2 * MOST_TOLD),
            color=_CHALLENGER,
            alpha=0.4,
            linewidth=4,
        )
        axes.plot(times, [only.effect], "o", color=_CHALLENGER)
    axes.axhline(0, color="#444b57", linewidth=1)
    axes.set_xlim(0, max(end_s / scale_s, 1e-9))
    for one in stretches:
        time = _since(start, one.begins, scale_s)
        if 0 <= time < end_s / scale_s:
            axes.axvline(time, color="#9aa1ad", linewidth=0.9, linestyle=":")
            _title(axes, one, time, end_s)
    _focus(axes, results)
    points = name == "preference"
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.2f}" if points else f"{value:+.0%}")
    axes.set_xlabel(f"{unit} since the first shopper saw the challenger")
    axes.set_ylabel("distance from one half" if points else "challenger over control")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e8ec", linewidth=0.8)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)
    return True


def _title(axes: Axes, stretch: Stretch, time: float, span_s: float) -> None:
    """Above its beginning, unless it is too short for it in a picture of ``span_s``."""
    if (stretch.ends - stretch.begins).total_seconds() > span_s / _TITLES:
        axes.text(
            time, 1.02, f" {stretch.title}", fontsize=9, va="bottom",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _focus(axes: Axes, results: Sequence[MetricResult]) -> None:
    """The first looks know next to nothing; what was known in the middle sets the scale."""
    middle = results[len(results) // 2 :]
    bounds = [value for one in middle for value in (one.low, one.high) if math.isfinite(value)]
    bounds += [one.effect for one in results] + [0.0]
    low, high = min(bounds), min(max(bounds), MOST_TOLD)
    centre, half = (low + high) / 2, max((high - low) / 2, 1e-6) * _ROOM
    axes.set_ylim(centre - half, centre + half)


def _time_unit(span_s: float) -> tuple[float, str]:
    for least_s, scale_s, name in _UNITS:
        if span_s >= least_s:
            return scale_s, name
    return 1.0, "seconds"


def _since(start: datetime, at: datetime, scale_s: float) -> float:
    return (at - start).total_seconds() / scale_s
