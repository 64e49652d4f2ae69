"""The structure of a report, and its rendering to HTML and Markdown.

The HTML page is self-contained: pictures are embedded, and it needs no network. The Markdown
page links its pictures.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Cell:
    """A figure, and its interval in small print."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A heading, column names, and rows whose first cell is a name."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    model: int | None = None
    """Index of the model's row."""
    best: int | None = None
    """Index of the best baseline's row."""
    note: str = ""
    words: frozenset[int] = frozenset()
    """Columns that hold text, which begins at the left and may break; from 0."""


@dataclass(frozen=True)
class Picture:
    """A PNG file next to the report."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with what belongs to it."""

    title: str
    text: str = ""
    tables: Sequence[ReportTable] = ()
    verdict: str = ""
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    facts: Sequence[str]
    """Date, model, seed and versions."""
    pictures: Sequence[Picture]
    sections: Sequence[Section]


def to_html(page: Page, folder: Path) -> str:
    """Return the text of ``report.html``.

    Args:
        page: what to show.
        folder: where its pictures are; they are embedded.

    Raises:
        FileNotFoundError: a picture is not there.
    """
    environment = Environment(
        loader=PackageLoader("newshelf.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = lambda file: _embedded(folder / file)
    return environment.get_template("report.html").render(page=page)


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


def to_markdown(page: Page) -> str:
    """Return the text of ``report.md``."""
    lines = [f"# {page.title}", "", " · ".join(page.facts), ""]
    lines += _pictures(page.pictures)
    for section in page.sections:
        lines += [f"## {section.title}", ""]
        lines += [section.text, ""] if section.text else []
        lines += [section.verdict, ""] if section.verdict else []
        for table in section.tables:
            lines += _table(table)
        lines += _pictures(section.pictures)
    return "\n".join(lines).rstrip() + "\n"


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    return [line for p in pictures for line in (f"![{p.caption}]({p.file})", "")]


def _table(table: ReportTable) -> list[str]:
    lines = [f"### {table.heading}", "", _row(table.header)]
    lines.append(_row(["---"] + ["--:"] * (len(table.header) - 1)))
    for number, row in enumerate(table.rows):
        cells = [_cell(cell, bold=number == table.model) for cell in row]
        lines.append(_row(cells))
    return [*lines, "", *([table.note, ""] if table.note else [])]


def _cell(cell: Cell, *, bold: bool) -> str:
    text = cell.text.replace("|", "\\|")
    text = f"**{text}**" if bold else text
    return f"{text} ({cell.interval})" if cell.interval else text


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
