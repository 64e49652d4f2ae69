import pytest
from rich.console import Console

from newshelf.tuning.profile import break_down, breakdown_table
from tests.unit.tuning.journeys import MakeJourney


def test_the_parts_add_up_to_the_whole(journey: MakeJourney) -> None:
    rows = break_down([journey(sent_ms=at) for at in range(5)], queue_ms=1.5)
    parts = {row.name: row.mean_ms for row in rows}
    assert parts == {
        "to the worker": 2.0,
        "socket and frontend": 0.5,
        "TorchServe's queue": 1.5,
        "parse the requests": 1.0,
        "decode pictures": 2.0,
        "preprocess": 0.0,
        "inference": 4.0,
        "postprocess": 1.0,
        "between the stages": 2.0,
        "back to the client": 1.0,
        "whole request": 13.0,
    }
    top = [row for row in rows[:-1] if not row.within]
    assert sum(row.share for row in top) == pytest.approx(1)
    assert sum(row.mean_ms for row in rows if row.within) == pytest.approx(rows[0].mean_ms)
    assert all(row.median_ms == row.p99_ms == row.mean_ms for row in top)


def test_without_the_servers_count_nothing_is_said_of_the_queue(journey: MakeJourney) -> None:
    assert not [row for row in break_down([journey()], None) if row.within]


def test_the_table_says_all_of_it(journey: MakeJourney) -> None:
    console = Console(width=80, record=True)
    console.print(breakdown_table(break_down([journey()], 1.5), "1 request"))
    text = console.export_text()
    assert "1 request" in text
    line = next(line for line in text.splitlines() if "inference" in line)
    assert line.count("4.000") == 3
    assert "30.8%" in line
    assert "100.0%" in text
