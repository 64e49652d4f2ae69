"""A kept report (``report.json``) as tables in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["print_report"]


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
    for name in (f"Recall@{k}", f"NDCG@{k}", "MRR", f"coverage@{k}"):
        table.add_column(name, justify="right", no_wrap=True)
    styles = {split["model"]: "bold", split["best_baseline"]: "green"}
    for row in split["rankers"]:
        figures = [f"{value:.4f}" for value in (row["recall"][k], row["ndcg"][k], row["mrr"])]
        coverage = f"{row['coverage'][k]:.1%}"
        table.add_row(escape(row["name"]), *figures, coverage, style=styles.get(row["name"]))
    return table
