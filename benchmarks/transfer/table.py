"""The results of a run in the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.transfer.result import TaskResult
from benchmarks.transfer.verdict import best, judge, measures, rows_of
from benchmarks.transfer.words import goal_words, reached_words, row_cells

__all__ = ["print_result"]


def print_result(result: TaskResult, console: Console) -> None:
    """One table: measure, method, value, ratio to the best baseline, goal, reached."""
    verdicts = {verdict.goal.measure: verdict for verdict in judge(result)}
    table = Table(title=escape(result.title), title_justify="left")
    table.add_column("measure")
    table.add_column("method")
    for name in ("mean ± sd", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("goal")
    table.add_column("reached")
    for measure in measures(result):
        lower = measure in result.lower_is_better
        rows = rows_of(result, measure)
        yardstick = best(rows, baseline=True, lower=lower)
        top = best(rows, baseline=False, lower=lower)
        verdict = verdicts.get(measure)
        for place, row in enumerate(rows):
            cells = row_cells(row, measure, yardstick, first=place == 0, percent=result.percent)
            judged = verdict.method if verdict is not None else None
            is_judged = verdict is not None and row is (judged or yardstick)
            if verdict is not None and is_judged:
                cells += [
                    goal_words(verdict, percent=result.percent, lower=lower),
                    reached_words(verdict),
                ]
            style = "bold" if row is top else "green" if row is yardstick else None
            table.add_row(*[escape(cell) for cell in cells], style=style)
        table.add_section()
    console.print(table)
