import time
from itertools import pairwise

import pytest

from newshelf.serving.trace import (
    BATCH_SIZE,
    CACHE_HITS,
    CACHE_MISSES,
    METRICS,
    STAGES,
    RecordingObserver,
    StageTimer,
)

STAGE_METRICS = dict(zip(STAGES, METRICS, strict=False))


def test_stages_are_summed_and_reported_once():
    recorder, stages = RecordingObserver(), StageTimer()
    for _ in range(2):
        with stages.measure("decode"):
            time.sleep(0.001)
    stages.report(recorder, 3)
    taken = dict(recorder.drain())
    assert set(taken) == {*STAGE_METRICS.values(), BATCH_SIZE}
    assert taken[BATCH_SIZE] == 3
    assert taken[STAGE_METRICS["decode"]] >= 0.002
    assert taken[STAGE_METRICS["inference"]] == 0
    assert recorder.drain() == []


def test_spans_are_what_the_sums_are_made_of():
    recorder, stages = RecordingObserver(), StageTimer()
    for stage in ("parse", "inference", "parse"):
        with stages.measure(stage):
            time.sleep(0.001)
    stages.report(recorder, 1)
    spans = recorder.drain_spans()
    assert [span.stage for span in spans] == ["parse", "inference", "parse"]
    assert all(left.end_ns <= right.start_ns for left, right in pairwise(spans))
    taken = dict(recorder.drain())
    parse_s = sum(span.end_ns - span.start_ns for span in spans if span.stage == "parse") / 1e9
    assert taken[STAGE_METRICS["parse"]] == pytest.approx(parse_s)
    assert recorder.drain_spans() == []


def test_a_stage_that_fails_is_measured_too():
    recorder, stages = RecordingObserver(), StageTimer()
    with pytest.raises(ValueError, match="no"), stages.measure("decode"):
        raise ValueError("no")
    stages.report(recorder, 1)
    assert [span.stage for span in recorder.drain_spans()] == ["decode"]


def test_counts_are_added_up_and_nothing_is_told_of_zero():
    recorder, stages = RecordingObserver(), StageTimer()
    stages.count(CACHE_HITS, 2)
    stages.count(CACHE_HITS, 3)
    stages.count(CACHE_MISSES, 0)
    stages.report(recorder, 1)
    taken = dict(recorder.drain())
    assert taken[CACHE_HITS] == 5
    assert CACHE_MISSES not in taken


def test_counters_are_told_by_their_names():
    kinds = {metric.name: metric.kind for metric in METRICS}
    assert kinds["newshelf_decode_seconds"] == kinds["newshelf_batch_size"] == "histogram"
    assert kinds["newshelf_unread_texts_total"] == "counter"
    assert [metric.name for metric in STAGE_METRICS.values()] == [
        name for name in kinds if name.endswith("_seconds")
    ]
