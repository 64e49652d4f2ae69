"""What generators saw adds up without loss, in whichever blocks it comes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.record import KindSecond, decoded, empty_histogram
from loadtest.recorder import DROPPED, RIGHT, Block, LoadRecorder, Observations, why_limited

Row = tuple[int, str, str, int, int, int]

ROWS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["a", "b"]),
        st.sampled_from([RIGHT, DROPPED, "503", "timeout"]),
        st.integers(0, 2**31),
        st.integers(0, 10**7),
        st.integers(0, 30_000),
    ),
    max_size=60,
)


def observed(rows: list[Row]) -> Block:
    seen = Observations()
    for row in rows:
        seen.add(*row)
    return Block.from_json(seen.take().to_json())


def naive(rows: list[Row]) -> dict[tuple[int, str], dict[str, object]]:
    """One request after the other."""
    cells: dict[tuple[int, str], dict[str, object]] = {}
    for second, kind, outcome, latency, service, lateness in rows:
        cell = cells.setdefault(
            (second, kind),
            {"intended": 0, "late": 0, "dropped": 0, "errors": {}, "latency": empty_histogram(),
             "service": empty_histogram()},
        )  # fmt: skip
        cell["intended"] += 1
        cell["late"] += lateness > 10_000
        if outcome == RIGHT:
            cell["latency"].record_value(min(max(latency, 1), 600_000_000))
            cell["service"].record_value(min(max(service, 1), 600_000_000))
        elif outcome == DROPPED:
            cell["dropped"] += 1
        else:
            cell["errors"][outcome] = cell["errors"].get(outcome, 0) + 1
    return cells


def counts(text: str) -> list[int]:
    return list(decoded(text).counts)


@settings(deadline=None, max_examples=20)
@given(ROWS, ROWS)
def test_it_is_what_a_loop_counts(first: list[Row], second: list[Row]) -> None:
    recorder = LoadRecorder(late_after_ms=10)
    recorder.add(observed(first))
    recorder.add(observed(second))
    load = recorder.load()
    cells = naive(first + second)
    assert [(part.second, part.kind) for part in load] == sorted(cells)
    for part in load:
        cell = cells[part.second, part.kind]
        assert (part.intended, part.late, part.dropped) == (
            cell["intended"], cell["late"], cell["dropped"],
        )  # fmt: skip
        assert dict(part.errors) == cell["errors"]
        for which in ("latency", "service"):
            assert counts(getattr(part, which)) == list(cell[which].counts)
    sent = [row for row in first + second if row[2] != DROPPED]
    assert recorder.lateness.total_count == len(sent)


@settings(deadline=None, max_examples=20)
@given(ROWS)
def test_seconds_that_are_closed_early_are_the_same(rows: list[Row]) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    early, late = LoadRecorder(10), LoadRecorder(10)
    late.add(observed(rows))
    for second in range(6):
        early.add(observed([row for row in rows if row[0] == second]))
        early.close(second + 1)
    assert early.load() == late.load()


def test_progress_tells_the_totals() -> None:
    recorder = LoadRecorder(10)
    recorder.add(observed([(0, "a", RIGHT, 5, 5, 20_000), (0, "b", "503", 5, 5, 0)]))
    recorder.add(observed([(1, "a", DROPPED, 0, 0, 0)]))
    progress = recorder.progress(1.5, 10)
    assert (progress.at_s, progress.seconds) == (1.5, 10)
    assert (progress.right, progress.errors, progress.dropped) == (1, 1, 1)


def test_what_was_sent_after_the_end_was_not_sent_in_time() -> None:
    recorder = LoadRecorder(10)
    rows: list[Row] = [(9, "a", RIGHT, 5, 5, 1_500_000)] * 3 + [(9, "a", RIGHT, 5, 5, 0)] * 7
    recorder.add(observed(rows))
    assert recorder.sent_in_time(10) == pytest.approx(0.7)
    assert LoadRecorder(10).sent_in_time(10) == 1


def lateness(ms: float, count: int = 100) -> object:
    histogram = empty_histogram()
    histogram.record_value(int(ms * 1000), count)
    return histogram


@pytest.mark.parametrize(
    ("cpu", "late_ms", "in_time", "says"),
    [
        (50.0, 1.0, 1.0, ""),
        (97.0, 1.0, 1.0, "97 % of a core"),
        (50.0, 30.0, 1.0, "30.0 ms late"),
        (50.0, 1.0, 0.9, "only 90.0 %"),
    ],
)
def test_the_generator_says_when_it_was_the_limit(
    cpu: float, late_ms: float, in_time: float, says: str
) -> None:
    why = why_limited(
        cpu_percent=cpu, lateness=lateness(late_ms), late_after_ms=10, sent_in_time=in_time
    )
    assert says in why
    assert bool(why) == bool(says)


def test_a_second_is_a_record(tmp_path: object) -> None:
    recorder = LoadRecorder(10)
    recorder.add(observed([(0, "a", RIGHT, 5000, 4000, 3)]))
    (part,) = recorder.load()
    assert KindSecond.model_validate_json(part.model_dump_json()) == part
    assert np.isclose(decoded(part.latency).get_value_at_percentile(50), 5000, rtol=1e-3)
