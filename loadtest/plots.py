"""Plots: latency, throughput, errors and percentiles of a run, its server, and a rate search."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.incidents import Incident
from loadtest.record import RunRecord, ServerSample
from loadtest.slo import LatencyLimit
from loadtest.timeline import Latencies, Timeline, Totals
from newshelf.report.plots import COLOURS, MUTED, legend_right, new_figure, save, style_axes

_WIDTH, _HEIGHT = 9.6, 3.4
_INCIDENT = "#d55e00"
_LATENCY_LINES: Sequence[tuple[str, Callable[[Latencies], float], str]] = (
    ("max", lambda one: one.max_ms, MUTED),
    ("p99", lambda one: one.percentile_ms(99), COLOURS[1]),
    ("p95", lambda one: one.percentile_ms(95), COLOURS[4]),
    ("p50", lambda one: one.percentile_ms(50), COLOURS[0]),
)
_MARKED_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_MB = 2**20
_MAX_MARKED_SECONDS = 120
"""Markers of longer runs would overlap."""
_BATCH_SIZES = {1: "1", 2: "2", 5: "3–5", 7: "6–7", 10: "8–10"}
"""Buckets of TorchServe's histogram."""


_LABELLED_RANGE = 30
"""Axes that span less label their minor ticks too: powers of ten alone are too few."""


def log_y(axes: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers. Call after plotting."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = axes.get_ylim()
    if high / low < _LABELLED_RANGE:
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(axis="y", which="minor", color="#e6e8ec", linewidth=0.8)
    else:
        axes.yaxis.set_minor_formatter("")


def draw_latency(timeline: Timeline, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: p50, p95, p99 and maximum of each second, incidents shaded."""
    seconds = timeline.by_second()
    figure, axes = _over_run(timeline, found, "latency, ms")
    for name, value, colour in _LATENCY_LINES:
        line = [value(one.latency) if one.answered else np.nan for one in seconds]
        _plot_seconds(axes, line, name, colour)
    log_y(axes)
    _save_with_legend(figure, axes, path)


def draw_throughput(timeline: Timeline, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: intended, sent and right responses of each second."""
    seconds = timeline.by_second()
    figure, axes = _over_run(timeline, found, "requests per second")
    _plot_seconds(axes, [one.intended for one in seconds], "intended", MUTED, 4.0)
    sent = [one.intended - one.dropped for one in seconds]
    _plot_seconds(axes, sent, "sent", COLOURS[4], 2.0)
    _plot_seconds(axes, [one.answered for one in seconds], "answered right", COLOURS[0])
    _start_at_zero(axes)
    _save_with_legend(figure, axes, path)


def draw_errors(timeline: Timeline, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: failed requests of each second by kind of error."""
    seconds = timeline.by_second()
    figure, axes = _over_run(timeline, found, "requests per second")
    series = {
        name: [one.errors.get(name, 0) for one in seconds] for name in timeline.total().errors
    }
    if any(one.dropped for one in seconds):
        series["never sent"] = [one.dropped for one in seconds]
    floor = np.zeros(len(seconds))
    for number, (name, counts) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(np.arange(len(seconds)) + 0.5, counts, width=1.0, bottom=floor, label=name,
                 color=colour)  # fmt: skip
        floor = floor + np.array(counts)
    _save_with_legend(figure, axes, path)


def draw_percentiles(timeline: Timeline, path: Path) -> None:
    """Write a PNG: latency by percentile of all requests, and of each kind."""
    kinds = timeline.kinds if len(timeline.kinds) > 1 else []
    curves = {"all": timeline.total()} | {kind: timeline.total(kind) for kind in kinds}
    draw_percentile_curves(curves, path)


def draw_percentile_curves(curves: Mapping[str, Totals], path: Path) -> None:
    """Write a PNG: latency by percentile, on the logarithmic scale of HdrHistogram's plots.

    The scale is 1 / (1 - q): each step to the right is a request ten times as rare.

    A curve called ``all`` is drawn in black.
    """
    figure = new_figure(_WIDTH, 3.8)
    axes = figure.add_subplot()
    rarest = 10.0
    for number, (name, total) in enumerate(curves.items()):
        if not total.answered:
            continue
        share, milliseconds = total.latency.curve()
        # The rarest request is one of all: nothing is known beyond it.
        rarity = 1 / np.maximum(1 - share, 1 / total.answered)
        rarest = max(rarest, float(rarity[-1]))
        axes.plot(
            np.concatenate([[1.0], rarity]),
            np.concatenate([milliseconds[:1], milliseconds]),
            label=name,
            color="#222222" if name == "all" else COLOURS[number % len(COLOURS)],
            linewidth=2.0 if name == "all" else 1.2,
            drawstyle="steps-post",
        )
    axes.set_xscale("log")
    marks = [share for share in _MARKED_SHARES if 1 / (1 - share) <= rarest * 1.01]
    axes.set_xticks([1 / (1 - share) for share in marks], [f"{100 * share:.5g}" for share in marks])
    axes.minorticks_off()
    axes.set_xlim(1, rarest * 1.05)
    log_y(axes)
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency, ms")
    style_axes(axes)
    _save_with_legend(figure, axes, path)


def draw_rates(
    runs: Mapping[str, Sequence[tuple[float, float]]],
    limit: LatencyLimit,
    rate: float | None,
    path: Path,
) -> None:
    """Write a PNG: throughput against latency, one point per run, and the limit.

    ``runs`` are (right responses per second, latency in ms) of those within the limit, by name,
    then of the others.
    """
    figure = new_figure(_WIDTH, 4.2)
    axes = figure.add_subplot()
    for (name, points), colour, mark in zip(runs.items(), COLOURS[2:0:-1], "ox", strict=True):
        seen = [point for point in points if np.isfinite(point[1])]
        if seen:
            x, y = zip(*seen, strict=True)
            axes.scatter(x, y, color=colour, marker=mark, s=36, label=name, zorder=3)
    axes.axhline(limit.most_ms, color=COLOURS[0], linestyle="--", linewidth=1.2,
                 label=f"limit: {limit}")  # fmt: skip
    if rate is not None:
        axes.axvline(rate, color="#222222", linewidth=1.0, label=f"{rate:.1f}/s")
    axes.set_xlabel("right responses per second")
    axes.set_ylabel(f"p{limit.percent:g}, ms")
    axes.set_xlim(left=0)
    log_y(axes)
    style_axes(axes)
    _save_with_legend(figure, axes, path)


def draw_batches(record: RunRecord, path: Path) -> None:
    """Write a PNG: batches by size, of which there is one at least, and their mean over time."""
    sizes = all_batches(record.server)
    figure = new_figure(_WIDTH, 3.2)
    bars, line = figure.subplots(1, 2)
    drawn = bars.bar([size_text(size) for size in sizes], list(sizes.values()), color=COLOURS[0])
    bars.bar_label(drawn, padding=2, fontsize=9)
    bars.set_xlabel("requests in a batch")
    bars.set_ylabel("batches")
    style_axes(bars)
    means = [(one.at_s, one.batched / sum(one.batch_sizes.values()))
             for one in record.server if one.batch_sizes]  # fmt: skip
    line.plot(*zip(*means, strict=True), color=COLOURS[0], linewidth=1.4)
    _run_axes(line, record.seconds, (), "mean requests in a batch")
    _start_at_zero(line)
    save(figure, path)


def draw_queue(record: RunRecord, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: mean time in TorchServe's queue."""
    figure = new_figure(_WIDTH, 2.8)
    axes = figure.add_subplot()
    values = [np.nan if one.queue_ms is None else one.queue_ms for one in record.server]
    axes.plot([one.at_s for one in record.server], values, color=COLOURS[0], linewidth=1.4,
              marker=".")  # fmt: skip
    _run_axes(axes, record.seconds, found, "mean time in queue, ms")
    _start_at_zero(axes)
    save(figure, path)


def draw_workers(record: RunRecord, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: memory and CPU of each worker; a replaced process leaves a gap."""
    figure = new_figure(_WIDTH, 3.2)
    memory, cpu = figure.subplots(1, 2)
    names = sorted({(one.model, one.worker) for sample in record.server for one in sample.workers})
    for number, name in enumerate(names):
        used = []
        for sample in record.server:
            found_here = [one for one in sample.workers if (one.model, one.worker) == name]
            alive = bool(found_here) and found_here[0].memory_bytes > 0
            used.append(
                (sample.at_s, found_here[0].memory_bytes / _MB, found_here[0].cpu_percent)
                if alive else (sample.at_s, np.nan, np.nan)
            )  # fmt: skip
        at_s, memory_mb, cpu_percent = zip(*used, strict=True)
        for axes, values in ((memory, memory_mb), (cpu, cpu_percent)):
            axes.plot(at_s, values, color=COLOURS[number % len(COLOURS)], label=" ".join(name),
                      linewidth=1.4, marker=".", markersize=3)  # fmt: skip
    for axes, label in ((memory, "memory, MiB"), (cpu, "CPU, % of a core")):
        _run_axes(axes, record.seconds, found, label)
        _start_at_zero(axes)
    figure.legend(*memory.get_legend_handles_labels(), loc="outside upper left", ncols=4,
                  frameon=False, fontsize=9)  # fmt: skip
    save(figure, path)


def size_text(size: int) -> str:
    """Return what is known of a batch size of a record."""
    return _BATCH_SIZES.get(size, f"about {size}")


def all_batches(samples: Sequence[ServerSample]) -> Mapping[int, int]:
    """Return batches of the run by size; those above the histogram's buckets are one size."""
    sizes: Counter[int] = Counter()
    for sample in samples:
        sizes.update(sample.batch_sizes)
    last = max(_BATCH_SIZES)
    above = {size: count for size, count in sizes.items() if size > last}
    found = {size: sizes[size] for size in sorted(sizes) if size <= last}
    if above:
        batches = sum(above.values())
        mean = round(sum(size * count for size, count in above.items()) / batches)
        found[max(mean, last + 1)] = batches
    return found


def _run_axes(axes: Axes, seconds: float, found: Sequence[Incident], label: str) -> None:
    for number, one in enumerate(found):
        axes.axvspan(
            one.start_s, one.end_s, color=_INCIDENT, alpha=0.12, linewidth=0,
            label="incident" if number == 0 else None,
        )  # fmt: skip
    axes.set_xlim(0, seconds)
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel(label)
    style_axes(axes)


def _start_at_zero(axes: Axes) -> None:
    # A constant line has no margin of its own.
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def _over_run(timeline: Timeline, found: Sequence[Incident], label: str) -> tuple[Figure, Axes]:
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.add_subplot()
    _run_axes(axes, timeline.length, found, label)
    return figure, axes


def _plot_seconds(
    axes: Axes, values: Sequence[float], name: str, colour: str, width: float = 1.4
) -> None:
    # Without markers, a second between two gaps would be invisible.
    mark = "." if len(values) <= _MAX_MARKED_SECONDS else ""
    middles = np.arange(len(values)) + 0.5
    axes.plot(middles, values, color=colour, label=name, linewidth=width, marker=mark)


def _save_with_legend(figure: Figure, axes: Axes, path: Path) -> None:
    legend_right(axes)
    save(figure, path)
