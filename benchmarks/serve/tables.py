"""Markdown tables of what the rows of a result leave out."""

from collections.abc import Sequence
from statistics import median

from benchmarks.serve.rounds import Measured
from benchmarks.transfer.report import markdown_table

__all__ = ["details"]


def details(found: Sequence[Measured]) -> str:
    """Every contender with every number of clients: layout, throughput, latency, cosine."""
    header = (
        "contender",
        "layout",
        "clients",
        "per second",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "CPU ms",
        "cos",
        "others",
    )
    rows = []
    for one in found:
        for clients in one.loads:
            speeds = one.values(clients)
            spread = f"{median(speeds):.1f} ({min(speeds):.1f}–{max(speeds):.1f})"
            times = [f"{median(one.values(clients, f'{p}_ms')):.1f}" for p in ("p50", "p90", "p99")]
            cpu_us = one.cpu_us(clients)
            cpu = "–" if cpu_us is None else f"{cpu_us / 1e3:.2f}"
            cosine = "–" if one.cosine is None else f"{one.cosine:.4f}"
            rows.append(
                (
                    one.name,
                    one.layout,
                    str(clients),
                    spread,
                    *times,
                    cpu,
                    cosine,
                    f"{one.disturbed:.0%}",
                )
            )
    text = (
        "Medians of the rounds; in brackets the least and the most of them. *CPU* is what the "
        "server's processes took of a core per request, the client's not counted; *cos* the least "
        "cosine to the float32 model's answers, *others* the most that other processes took of "
        "the cores during a turn; a turn with more than 3 % is taken again, three times at most."
    )
    return f"{markdown_table(header, 'llrrrrrrrr', rows)}\n\n{text}"
