"""A page as Markdown, its pictures linked."""

from collections.abc import Sequence

from newshelf.evaluation.page import Page, Picture
from newshelf.evaluation.tables import Cell, Table

__all__ = ["to_markdown"]


def to_markdown(page: Page) -> str:
    """What ``report.md`` holds."""
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


def _table(table: Table) -> list[str]:
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
