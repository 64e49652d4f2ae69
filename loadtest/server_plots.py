"""The pictures of the server's side of a run: queue, batches, workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from loadtest.incidents import Incident
from loadtest.plots import over_seconds, quiet_axes
from loadtest.record import RunRecord, ServerSample
from newshelf.evaluation.figures.canvas import COLOURS, new_figure, save

__all__ = ["all_batches", "draw_batches", "draw_queue", "draw_workers", "size_words"]

_WIDTH = 9.6
_MB = 2**20
_EXACT = {1: "1", 2: "2", 5: "3–5", 7: "6–7", 10: "8–10"}
"""What the bounds of TorchServe's histogram leave open."""


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
