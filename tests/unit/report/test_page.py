"""No figure of a table is cut, whatever the terminal's width."""

import io

import pytest
from rich.console import Console

from newshelf.cli.console import make_console
from newshelf.report.page import ReportTable, print_table

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
