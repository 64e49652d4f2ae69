"""Plots of a run: latency, throughput, errors, percentiles, queue, batches and workers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.incidents import Incident
from loadtest.record import RunRecord, ServerSample
from loadtest.timeline import Latencies, Timeline, Totals
from newshelf.report.plots import COLOURS, MUTED, new_figure, save

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
_EXACT = {1: "1", 2: "2", 5: "3–5", 7: "6–7", 10: "8–10"}
"""What the bounds of TorchServe's histogram leave open."""


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


def size_words(size: int) -> str:
    """A batch size of a record, as what is known of it."""
    return _EXACT.get(size, f"about {size}")


def all_batches(samples: Sequence[ServerSample]) -> Mapping[int, int]:
    """Batches of the whole run by size, those above the histogram's bounds together."""
    sizes: Counter[int] = Counter()
    for sample in samples:
        sizes.update(sample.batch_sizes)
    last = max(_EXACT)
    above = {size: count for size, count in sizes.items() if size > last}
    found = {size: sizes[size] for size in sorted(sizes) if size <= last}
    if above:
        batches = sum(above.values())
        mean = round(sum(size * count for size, count in above.items()) / batches)
        found[max(mean, last + 1)] = batches
    return found


def draw_batches(record: RunRecord, path: Path) -> None:
    """Write a PNG: how many batches had which size, and the mean size over time.

    Raises:
        ValueError: no batch was seen.
    """
    sizes = all_batches(record.server)
    if not sizes:
        raise ValueError("there is no batch to draw")
    figure = new_figure(_WIDTH, 3.2)
    bars, line = figure.subplots(1, 2)
    drawn = bars.bar([size_words(size) for size in sizes], list(sizes.values()), color=COLOURS[0])
    bars.bar_label(drawn, padding=2, fontsize=9)
    bars.set_xlabel("requests in a batch")
    bars.set_ylabel("batches")
    quiet_axes(bars)
    seen = [(one.at_s, one.batched / sum(one.batch_sizes.values()))
            for one in record.server if one.batch_sizes]  # fmt: skip
    line.plot(*zip(*seen, strict=True), color=COLOURS[0], linewidth=1.4)
    over_seconds(line, record.seconds, ())
    line.set_ylim(bottom=0)
    line.set_ylabel("mean requests in a batch")
    save(figure, path)


def draw_queue(record: RunRecord, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: the mean time in TorchServe's queue, and when the server was away."""
    figure = new_figure(_WIDTH, 2.8)
    axes = figure.add_subplot()
    values = [np.nan if one.queue_ms is None else one.queue_ms for one in record.server]
    axes.plot([one.at_s for one in record.server], values, color=COLOURS[0], linewidth=1.4,
              marker=".")  # fmt: skip
    over_seconds(axes, record.seconds, found)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean time in queue, ms")
    save(figure, path)


def draw_workers(record: RunRecord, found: Sequence[Incident], path: Path) -> None:
    """Write a PNG: memory and processor of every worker over time.

    A worker whose process was replaced is one line with a gap.
    """
    figure = new_figure(_WIDTH, 3.2)
    memory, cpu = figure.subplots(1, 2)
    names = sorted({(one.model, one.worker) for sample in record.server for one in sample.workers})
    x = [sample.at_s for sample in record.server]
    for number, name in enumerate(names):
        seen = [
            next((one for one in sample.workers if (one.model, one.worker) == name), None)
            for sample in record.server
        ]
        alive = [one if one is not None and one.memory_bytes else None for one in seen]
        colour = COLOURS[number % len(COLOURS)]
        label = " ".join(name)
        for axes, values in (
            (memory, [np.nan if one is None else one.memory_bytes / _MB for one in alive]),
            (cpu, [np.nan if one is None else one.cpu_percent for one in alive]),
        ):
            axes.plot(x, values, color=colour, label=label, linewidth=1.4, marker=".", markersize=3)
    for axes, words in ((memory, "memory, MiB"), (cpu, "processor, % of a core")):
        over_seconds(axes, record.seconds, found)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(words)
    figure.legend(*memory.get_legend_handles_labels(), loc="outside upper left", ncols=4,
                  frameon=False, fontsize=9)  # fmt: skip
    save(figure, path)
