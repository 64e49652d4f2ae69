"""Tables of figures for a terminal of any width."""

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

_ANY_WIDTH = 10_000


def print_figures(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    heading: str = "",
    left: Collection[int] = (0,),
    further: Collection[int] = (),
    dim: Collection[int] = (),
) -> None:
    """Print a table in which no figure is cut, however narrow the terminal is.

    Where it does not fit, the columns that say less are left out, and so are the lines between
    the others, and cells break at their spaces; where that is not enough, the table runs over
    the edge.

    Args:
        console: where to.
        header: the columns' names.
        rows: plain text, a cell for each column.
        heading: above the table.
        left: columns of words, which begin at the left; from 0.
        further: columns to leave out first.
        dim: rows that count for less; from 0.
    """
    whole = range(len(header))
    table = _table(header, rows, heading, left, dim, whole)
    if _measured(console, table).maximum > console.width:
        kept = [at for at in whole if at not in further]
        table = _table(header, rows, heading, left, dim, kept)
        table.box = box.SIMPLE_HEAD
        least = _measured(console, table).minimum
        if least > console.width:
            table.width = least
    console.print(table, crop=False)


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    heading: str,
    left: Collection[int],
    dim: Collection[int],
    shown: Sequence[int],
) -> Table:
    table = Table(title=escape(heading) or None, title_justify="left")
    for at in shown:
        words = " ".join([header[at], *(row[at] for row in rows)]).split()
        # Rich itself would make a column of any width, and cut what it holds.
        table.add_column(
            escape(header[at]),
            justify="left" if at in left else "right",
            min_width=max(map(len, words), default=0),
        )
    for number, row in enumerate(rows):
        table.add_row(*(escape(row[at]) for at in shown), style="dim" if number in dim else None)
    return table


def _measured(console: Console, table: Table) -> Measurement:
    options = console.options.update(width=_ANY_WIDTH)
    return Measurement.get(console, options, table)
