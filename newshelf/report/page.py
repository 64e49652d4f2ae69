"""Report pages and their tables, rendered as HTML and Markdown, and tables in a terminal.

An HTML page is self-contained: its pictures are embedded, and it loads nothing from the network.
A Markdown page links its pictures.
"""

from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from newshelf.files import open_templates, write_aside

_ANY_WIDTH = 10_000


@dataclass(frozen=True)
class Cell:
    """A figure with its interval, or other small print."""

    text: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.interval})" if self.interval else self.text


@dataclass(frozen=True)
class ReportTable:
    """A heading, column names, and rows whose first cell is a name. Indices start at 0."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    main_row: int | None = None
    """Highlighted: the model, or the total."""
    reference_row: int | None = None
    """Highlighted in a second colour: the best baseline."""
    dim_rows: Collection[int] = ()
    """Printed fainter in a terminal."""
    text_columns: Collection[int] = ()
    """Left-aligned, and wrapped on a page; the first column is left-aligned anyway."""
    optional_columns: Collection[int] = ()
    """Left out first in a narrow terminal."""
    note: str = ""
    """Below the table on a page."""

    @property
    def cells(self) -> list[list[Cell]]:
        """All rows, with plain text as cells too."""
        return [
            [Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows
        ]


def print_table(table: ReportTable, console: Console) -> None:
    """Print a table without cutting any figure; a narrow terminal gets fewer columns and lines."""
    columns = range(len(table.header))
    printed = _rich_table(table, columns)
    if _measured(console, printed).maximum > console.width:
        printed = _rich_table(table, [at for at in columns if at not in table.optional_columns])
        printed.box = box.SIMPLE_HEAD
        least = _measured(console, printed).minimum
        if least > console.width:
            printed.width = least
    console.print(printed, crop=False)


def _rich_table(table: ReportTable, columns: Sequence[int]) -> Table:
    printed = Table(title=escape(table.heading) or None, title_justify="left")
    rows = [[str(cell) for cell in row] for row in table.rows]
    for at in columns:
        words = " ".join([table.header[at], *(row[at] for row in rows)]).split()
        # Without a minimum, rich shrinks a column to any width and cuts its content.
        printed.add_column(
            escape(table.header[at]),
            justify="left" if at == 0 or at in table.text_columns else "right",
            min_width=max(map(len, words), default=0),
        )
    for number, row in enumerate(rows):
        printed.add_row(*(escape(row[at]) for at in columns), style=_style(table, number))
    return printed


def _style(table: ReportTable, row: int) -> str | None:
    if row == table.main_row:
        return "bold"
    if row == table.reference_row:
        return "green"
    return "dim" if row in table.dim_rows else None


def _measured(console: Console, table: Table) -> Measurement:
    return Measurement.get(console, console.options.update(width=_ANY_WIDTH), table)


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file next to the report."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with its text, tables and pictures."""

    title: str
    text: str = ""
    tables: Sequence[ReportTable] = ()
    verdict: str = ""
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    facts: Sequence[str]
    """Date, model, seed, versions and the like."""
    pictures: Sequence[Picture]
    sections: Sequence[Section]


def save_page(page: Page, path: Path, pictures: Path | None = None) -> None:
    """Write the page, atomically, as HTML or Markdown by the file's suffix.

    Its pictures are in the folder ``pictures``, by default next to it.
    """
    environment = open_templates("newshelf.report")
    environment.filters["embedded"] = lambda file: _embedded((pictures or path.parent) / file)
    text = environment.get_template(f"report{path.suffix}").render(page=page)
    with write_aside(path) as aside:
        aside.write_text(text.rstrip() + "\n", encoding="utf-8")


def _embedded(path: Path) -> str:
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{b64encode(path.read_bytes()).decode()}"
