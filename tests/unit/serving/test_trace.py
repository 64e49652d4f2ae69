import time
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.serving.trace import STAGES, TraceSpan, read_trace, wants_trace, write_trace


@st.composite
def batches(draw):
    """A batch's start and its spans, in order and apart."""
    start = at = time.perf_counter_ns()
    spans = []
    for stage in draw(st.lists(st.sampled_from(STAGES), max_size=20)):
        begin = at + draw(st.integers(0, 100_000))
        at = begin + draw(st.integers(0, 10_000_000))
        spans.append(TraceSpan(stage, begin, at))
    return start, spans


@given(batches())
def test_what_is_written_is_read_back(batch):
    start, spans = batch
    read = read_trace(write_trace(42, 7, start, spans))
    assert (read.worker, read.size) == (42, 7)
    assert read.end_ns >= read.start_ns
    for left, right in pairwise(read.spans):
        assert left.end_ns <= right.start_ns
    for stage in STAGES:
        written = [span for span in spans if span.stage == stage]
        told = [span for span in read.spans if span.stage == stage]
        assert bool(written) == bool(told)
        if written:
            assert told[0].start_ns - read.start_ns == written[0].start_ns - start
            assert told[-1].end_ns - read.start_ns == written[-1].end_ns - start


def test_moments_are_of_the_epoch():
    before = time.time_ns()
    start = time.perf_counter_ns()
    read = read_trace(write_trace(1, 1, start, []))
    after = time.time_ns()
    # The clocks' steps may differ by microseconds.
    assert before - 1_000_000 <= read.start_ns <= read.end_ns <= after + 1_000_000


def test_many_pictures_are_told_in_one_span_and_a_pause_parts_them():
    spans = [TraceSpan("decode", at * 1000, at * 1000 + 900) for at in range(100)]
    spans.append(TraceSpan("decode", 5_000_000, 6_000_000))
    spans.append(TraceSpan("inference", 6_000_001, 7_000_000))
    told = read_trace(write_trace(1, 1, 0, spans)).spans
    assert [span.stage for span in told] == ["decode", "decode", "inference"]
    assert told[0].end_ns - told[0].start_ns == 99_900


def test_the_header_is_one_line_of_ascii():
    text = write_trace(1, 1, 0, [TraceSpan("parse", 0, 1)])
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("name", ["x-newshelf-trace", "X-Newshelf-Trace"])
def test_who_asks_is_told(name):
    assert wants_trace({"a": "b", name: ""})


def test_nobody_else_is():
    assert not wants_trace({"x-newshelf-deadline": "1"})


GOOD = orjson.loads(write_trace(1, 1, 0, []))


@pytest.mark.parametrize(
    "value",
    ["", "[]", "{", orjson.dumps({**GOOD, "spans": [["sleep", 0, 1]]}).decode(), "null", "7"],
    ids=["empty", "list", "cut", "stage", "null", "number"],
)
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match="not a trace of this version"):
        read_trace(value)
