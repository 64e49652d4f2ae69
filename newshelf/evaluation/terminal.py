"""A kept report (``report.json``), or two of them, as tables in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from newshelf.evaluation.compare_reports import PairedSplit


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """One table per split with its description and verdict, at the first cut-off.

    The other cut-offs are in ``report.md``: all of them do not fit a usual terminal.
    """
    for split in report["splits"]:
        console.print(_table(split))
        console.print(escape(split["description"]), style="dim")
        console.print(split["verdict"], highlight=False, markup=False)
        console.print()


def _table(split: Mapping[str, Any]) -> Table:
    k = str(split["k"][0])
    title = f"{split['name']}: {split['cases']} cases, {split['items_ranked']} items ranked"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("ranker", no_wrap=True)
    for name in (f"Recall@{k}", f"NDCG@{k}", f"HitRate@{k}", "MRR", f"coverage@{k}"):
        table.add_column(name, justify="right", no_wrap=True)
    styles = {split["model"]: "bold", split["best_baseline"]: "green"}
    for row in split["rankers"]:
        found = (row["recall"][k], row["ndcg"][k], row["hit_rate"][k], row["mrr"])
        figures = [f"{value:.4f}" for value in found]
        coverage = f"{row['coverage'][k]:.1%}"
        table.add_row(escape(row["name"]), *figures, coverage, style=styles.get(row["name"]))
    return table


def print_pairs(pairs: Sequence[PairedSplit], console: Console) -> None:
    """One table per split: both models, their difference with its interval, p and verdict."""
    for pair in pairs:
        table = Table(title=escape(pair.split), title_justify="left")
        table.add_column("metric", no_wrap=True)
        for name in ("this", "other", "difference", "95 %", "p"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("this is", no_wrap=True)
        for metric, test in pair.tests.items():
            low, high = test.interval or (None, None)
            table.add_row(
                metric,
                f"{test.first:.4f}",
                f"{test.second:.4f}",
                f"{test.difference:+.4f}",
                "–" if low is None else f"{low:+.4f} to {high:+.4f}",
                f"{test.p_value:.4f}",
                test.verdict,
            )
        console.print(table)
        groups = next(iter(pair.tests.values())).groups
        console.print(
            f"this: {pair.ours}; other: {pair.theirs}; {groups} independent groups of cases",
            style="dim",
            markup=False,
        )
        console.print()
