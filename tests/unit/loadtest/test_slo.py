"""Limits: what is read, what is refused, and which were broken by how much."""

import pytest

from loadtest.slo import Limits, Objective, judge, read_limits
from loadtest.timeline import Timeline
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT
from newshelf.tuning.slo import LatencyLimit
from tests.unit.loadtest.made_records import made_record, made_second

KINDS = {"encode text", "encode both", "recommend history", "recommend candidates"}


def read(tmp_path, text):
    path = tmp_path / "slo.yaml"
    path.write_text(text)
    return read_limits(str(path), KINDS)


def judged(limits, *load):
    return judge(limits, Timeline.of(made_record(load)))


def test_the_file_that_comes_with_it_is_read():
    limits = read_limits(str(ROOT / "loadtest" / "slo.yaml"), KINDS)
    assert limits.every.error_rate == 0.001
    assert limits.kinds["recommend history"].latencies[0] == LatencyLimit(50, 50)


def test_all_fields(tmp_path):
    limits = read(
        tmp_path,
        "all: {p50_ms: 5, p95_ms: 9.5, p99_ms: 20, error_rate: 0, throughput: 100}\n"
        "kinds: {encode text: {p99_ms: 7}}\n",
    )
    latencies = (LatencyLimit(50, 5), LatencyLimit(95, 9.5), LatencyLimit(99, 20))
    assert limits.every == Objective(latencies, 0, 100)
    assert limits.kinds == {"encode text": Objective((LatencyLimit(99, 7),))}


def test_the_short_form_is_that_of_tune():
    assert read_limits("p99=50ms,errors=0.1%", KINDS) == Limits(
        Objective((LatencyLimit(99, 50),), 0.001)
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("all: {p98_ms: 4}", "all: unknown field 'p98_ms'"),
        ("every: {p99_ms: 4}", "unknown field 'every'"),
        ("kinds: {encode text: {p99: 4}}", "kinds.encode text: unknown field 'p99'"),
        ("kinds: {encode: {p99_ms: 4}}", "'encode'; there are encode both"),
        ("all: {p99_ms: '4'}", "all.p99_ms: input should be a valid number"),
        ("all: {p99_ms: 0}", "all.p99_ms: input should be greater than 0"),
        ("all: {p99_ms: true}", "all.p99_ms: input should be a valid number"),
        ("all: {error_rate: 2}", "all.error_rate: input should be less than or equal to 1"),
        ("all: {p50_ms: 9, p99_ms: 4}", "all: p50_ms allows more than p99_ms"),
        ("all: 4", "all: input should be a valid dictionary"),
        ("all: {}", "sets no limit"),
        ("- 1", "'all' and 'kinds'"),
        ("all: {p99_ms", "is not YAML"),
    ],
)
def test_what_is_refused_names_file_place_and_what_is_allowed(tmp_path, text, told):
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    assert raised.value.message.startswith(str(tmp_path / "slo.yaml"))
    assert told in raised.value.message
    assert "\n" not in raised.value.message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="No such file or directory"):
        read_limits(str(tmp_path / "none.yaml"), KINDS)


def test_what_is_kept_and_what_is_broken_by_how_much():
    limits = Limits(
        Objective((LatencyLimit(50, 20), LatencyLimit(99, 80)), 0.05, 10),
        {"encode text": Objective((LatencyLimit(99, 8),))},
    )
    load = [made_second(0, [10] * 50 + [100] * 50, errors={"503": 25})]
    found = {(one.scope, one.name): one for one in judged(limits, *load)}
    p50, p99 = found["all", "p50_ms"], found["all", "p99_ms"]
    assert p50.kept
    assert not p99.kept
    assert p99.excess == pytest.approx(20, rel=0.01)
    assert p99.excess_share == pytest.approx(0.25, rel=0.01)
    assert str(p99).startswith("all: p99 is 100.0 ms; at most 80.0 ms")
    assert "(20.0 ms, 25% above)" in str(p99)
    errors = found["all", "error_rate"]
    assert (errors.measured, errors.kept) == (0.2, False)
    assert "error rate is 20.00%; at most 5.00%" in str(errors)
    assert found["all", "throughput"].kept
    unsent = found["encode text", "p99_ms"]
    assert (unsent.kept, unsent.measured) == (True, None)
    assert "was not tested" in str(unsent)


def test_too_little_throughput_is_told_as_below():
    [slow] = judged(Limits(Objective(throughput=200)), made_second(0, [1] * 50))
    assert not slow.kept
    assert str(slow).endswith("at least 200.00/s was asked for (150.00/s, 75% below)")


def test_where_nothing_was_answered_no_latency_is_kept():
    objective = Objective((LatencyLimit(99, 1e6),), 0.0)
    late, failed = judged(Limits(objective), made_second(0, [], errors={"timeout": 3}))
    assert not late.kept
    assert "p99 is infinite" in str(late)
    assert (failed.measured, failed.excess_share) == (1.0, float("inf"))
    assert not any(one.kept for one in judged(Limits(objective), made_second(0, [])))
