"""Totals and percentiles of a record."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.record import decoded, empty_histogram, encoded
from loadtest.timeline import Latencies, Timeline
from tests.unit.loadtest.conftest import merged
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


MICROSECONDS = st.lists(st.integers(1, 599_999_999), min_size=1, max_size=60)
PERCENTS = [1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0]


def recorded(values):
    histogram = empty_histogram()
    for value in values:
        histogram.record_value(value)
    return histogram


@given(MICROSECONDS)
def test_percentiles_mean_and_max_are_those_of_the_library(values):
    histogram = recorded(values)
    found = Latencies.of(decoded(encoded(histogram)))
    theirs = histogram.get_percentile_to_value_dict(PERCENTS)
    assert found.percentiles_ms(PERCENTS) == [theirs[percent] / 1e3 for percent in PERCENTS]
    assert found.count == len(values)
    assert found.max_ms == histogram.get_max_value() / 1e3
    assert found.mean_ms == pytest.approx(histogram.get_mean_value() / 1e3)
    assert found.mean_ms == pytest.approx(np.mean(values) / 1e3, rel=1e-3, abs=1e-3)


@given(MICROSECONDS, MICROSECONDS)
def test_what_is_merged_is_what_would_have_been_recorded_together(first, second):
    mine = Latencies.merged([Latencies.of(recorded(first)), Latencies.of(recorded(second))])
    theirs = Latencies.of(merged([recorded(first), recorded(second)]))
    for name in ("highest_us", "middle_us", "counts"):
        assert getattr(mine, name).tolist() == getattr(theirs, name).tolist()


def test_without_any_the_percentiles_are_infinite_and_nothing_is_above():
    none = Latencies.merged([Latencies.none(), Latencies.of(empty_histogram())])
    assert none.percentiles_ms([50, 99]) == [float("inf")] * 2
    assert (none.count, none.max_ms, none.mean_ms) == (0, 0.0, float("inf"))
    assert none.above(0.0) == 0


def test_counts_above_and_the_curve():
    found = Latencies.of(recorded([1_000, 1_000, 2_000, 40_000]))
    assert [found.above(limit) for limit in (0.5, 1.5, 30, 50)] == [4, 2, 1, 0]
    share, milliseconds = found.curve()
    assert share.tolist() == [0.5, 0.75, 1.0]
    assert milliseconds == pytest.approx([1.0, 2.0, 40.0], rel=2e-3)
