"""Tables in a terminal, in which no figure is cut, and pages as Markdown and HTML."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from newshelf.cli.console import make_console
from newshelf.report.page import (
    Cell,
    Page,
    Picture,
    ReportTable,
    Section,
    print_table,
    save_page,
)

HEADER = ("kind", "per second", "p50", "p90", "p99", "failed")
ROWS = (
    ("recommend candidates", "1,123.3", "407", "503", "1,675", "203 (19.89%)"),
    ("[all]", "2,052.7", "54.3", "88.1", "1,749", "0"),
)
OPTIONAL = (3,)


def printed(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(ReportTable("Requests [ms]", HEADER, ROWS, optional_columns=OPTIONAL), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_columns_where_there_is_room() -> None:
    shown = printed(100)
    assert "Requests [ms]" in shown
    for cell in (*HEADER, *ROWS[0], *ROWS[1]):
        assert cell in shown
    assert len({len(line) for line in shown.splitlines()[1:]}) == 1


@pytest.mark.parametrize("width", [60, 45, 20, 1])
def test_a_narrow_terminal_is_told_less_and_nothing_cut(width: int) -> None:
    shown = printed(width)
    assert "…" not in shown
    for row in (HEADER, *ROWS):
        for at, cell in enumerate(row):
            for word in cell.split():
                assert (word in shown.split()) == (at not in OPTIONAL), word
    longest = max(map(len, shown.splitlines()))
    assert longest <= max(width, 56)


def test_a_log_is_as_wide_as_its_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = [row * 2 for row in ROWS]
    print_table(ReportTable("", HEADER * 2, rows, optional_columns=OPTIONAL), make_console())
    shown = capsys.readouterr().out
    assert shown.count("503") == len(ROWS)
    assert "recommend candidates" in shown


def test_a_page_is_written_as_markdown_and_as_html(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"png")
    rows = [["a|b", Cell("0.5", "0.4 – 0.6")], ["<c>", "1"]]
    table = ReportTable("Scores", ("name", "score"), rows, main_row=0, note="Of all.")
    section = Section("Part", "Text.", [table], "Better.", [Picture("plot.png", "A plot")])
    page = Page("Title & more", ["today", "seed 0"], [], [section])
    save_page(page, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (
        "# Title & more\n\ntoday · seed 0\n\n## Part\n\nText.\n\nBetter.\n\n### Scores\n\n"
        "| name | score |\n| --- | --: |\n| **a\\|b** | **0.5** (0.4 – 0.6) |\n| <c> | 1 |\n\n"
        "Of all.\n\n![A plot](plot.png)\n"
    )
    save_page(page, tmp_path / "page.html")
    shown = (tmp_path / "page.html").read_text()
    assert "<h1>Title &amp; more</h1>" in shown
    assert "&lt;c&gt;" in shown
    assert 'src="data:image/png;base64,cG5n"' in shown
