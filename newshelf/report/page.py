"""Report pages: their structure, and their rendering as HTML and Markdown.

An HTML page is self-contained: its pictures are embedded, and it loads nothing from the network.
A Markdown page links its pictures.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from newshelf.files import write_aside
from newshelf.report.tables import Cell, ReportTable


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


def write_html(page: Page, path: Path, pictures: Path) -> None:
    """Write the page as HTML, atomically; its pictures are in the folder ``pictures``."""
    environment = Environment(
        loader=PackageLoader("newshelf.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = lambda file: _embedded(pictures / file)
    text = environment.get_template("report.html").render(page=page)
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _embedded(path: Path) -> str:
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{b64encode(path.read_bytes()).decode()}"


def write_markdown(page: Page, path: Path) -> None:
    """Write the page as Markdown, atomically; its pictures are in the same folder."""
    lines = [f"# {page.title}", "", " · ".join(page.facts), ""]
    lines += _pictures(page.pictures)
    for section in page.sections:
        lines += [f"## {section.title}", ""]
        lines += [section.text, ""] if section.text else []
        lines += [section.verdict, ""] if section.verdict else []
        for table in section.tables:
            lines += _table(table)
        lines += _pictures(section.pictures)
    with write_aside(path) as aside:
        aside.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    return [line for p in pictures for line in (f"![{p.caption}]({p.file})", "")]


def _table(table: ReportTable) -> list[str]:
    lines = [f"### {table.heading}", "", _row(table.header)]
    is_text = [at == 0 or at in table.text_columns for at in range(len(table.header))]
    lines.append(_row(["---" if text else "--:" for text in is_text]))
    for number, row in enumerate(table.cells):
        lines.append(_row([_cell(cell, bold=number == table.main_row) for cell in row]))
    return [*lines, "", *([table.note, ""] if table.note else [])]


def _cell(cell: Cell, *, bold: bool) -> str:
    text = cell.text.replace("|", "\\|")
    return str(Cell(f"**{text}**" if bold else text, cell.interval))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
