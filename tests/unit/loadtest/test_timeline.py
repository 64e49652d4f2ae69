"""Totals of a record."""

import pytest

from loadtest.timeline import Timeline
from tests.unit.loadtest.made_records import made_record, made_second

RECORD = made_record(
    [
        made_second(0, [10, 20], kind="encode text"),
        made_second(0, [1, 2, 3], kind="recommend history", late=1),
        made_second(2, [5], kind="encode text", errors={"503": 2, "timeout": 1}, dropped=4),
    ],
    seconds=4,
)


def test_the_whole_run_and_one_kind_of_it():
    timeline = Timeline.of(RECORD)
    whole, encoded = timeline.total(), timeline.total("encode text")
    assert timeline.kinds == ["encode text", "recommend history"]
    assert (whole.intended, whole.answered, whole.failed, whole.late) == (13, 6, 7, 1)
    assert whole.errors == {"503": 2, "timeout": 1}
    assert whole.error_rate == pytest.approx(7 / 13)
    assert whole.throughput == 6 / 4
    assert whole.latency.percentile_ms(50) == pytest.approx(3, rel=2e-3)
    assert (encoded.answered, encoded.failed) == (3, 7)


def test_second_by_second_with_those_in_which_nothing_happened():
    seconds = Timeline.of(RECORD).by_second()
    assert [second.answered for second in seconds] == [5, 0, 1, 0]
    assert [second.error_rate for second in seconds] == [0, 0, 7 / 8, 0]
    assert [second.answered for second in Timeline.of(RECORD).by_second("encode text")] == [
        2, 0, 1, 0,
    ]  # fmt: skip


def test_parts_of_several_processes_are_added():
    twice = made_record([made_second(0, [1.0]), made_second(0, [9.0], errors={"500": 1})])
    [second] = Timeline.of(twice).by_second()
    assert (second.answered, second.failed, second.seconds) == (2, 1, 1.0)
