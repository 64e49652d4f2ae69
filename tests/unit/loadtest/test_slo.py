from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import traffic
from loadtest.slo import LatencyLimit, Slo, SloSet, parse_slo, read_slo
from loadtest.tuning.load import LoadResult
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT
from tests.unit.loadtest.tuning.conftest import load

KINDS = {"encode text", "encode both", "recommend history", "recommend candidates"}


def read(tmp_path: Path, text: str) -> SloSet:
    path = tmp_path / "slo.yaml"
    path.write_text(text)
    return read_slo(str(path), KINDS)


def test_the_file_that_comes_with_it_is_read() -> None:
    limits = read_slo(str(ROOT / "loadtest" / "slo.yaml"), KINDS)
    assert limits.every.error_rate == 0.001
    assert limits.kinds["recommend history"].latencies[0] == LatencyLimit(50, 50)
    limits = read_slo(str(ROOT / "loadtest" / "slo-gateway.yaml"), traffic.KINDS)
    assert limits.every.fallback_rate == 0.01
    assert set(limits.kinds) == {*get_args(traffic.ShopKind), "feedback"}


def test_all_fields(tmp_path: Path) -> None:
    limits = read(
        tmp_path,
        "all: {p50_ms: 5, p95_ms: 9.5, p99_ms: 20, error_rate: 0, throughput: 100}\n"
        "kinds: {encode text: {p99_ms: 7}}\n",
    )
    latencies = (LatencyLimit(50, 5), LatencyLimit(95, 9.5), LatencyLimit(99, 20))
    assert limits.every == Slo(latencies, 0, 100)
    assert limits.kinds == {"encode text": Slo((LatencyLimit(99, 7),))}


def test_the_short_form_is_that_of_tune() -> None:
    assert read_slo("p99=50ms,errors=0.1%", KINDS) == SloSet(Slo((LatencyLimit(99, 50),), 0.001))


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
        ("all: {p50_ms: 9, p99_ms: 4}", "all: p50=9ms allows more than p99=4ms"),
        ("all: 4", "all: input should be a valid dictionary"),
        ("all: {}", "sets no limit"),
        ("- 1", "'all' and 'kinds'"),
        ("all: {p99_ms", "is not YAML"),
    ],
)
def test_a_refused_file_names_the_place_and_what_is_allowed(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    assert raised.value.message.startswith(str(tmp_path / "slo.yaml"))
    assert told in raised.value.message
    assert "\n" not in raised.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file or directory"):
        read_slo(str(tmp_path / "none.yaml"), KINDS)


def test_latencies_in_any_unit_and_order_and_a_share_of_errors() -> None:
    assert parse_slo("p99=50ms") == Slo((LatencyLimit(99, 50),), 0.0)
    assert parse_slo(" p99.9 = 1.5s , p50=800us, errors=0.1% ") == Slo(
        (LatencyLimit(50, 0.8), LatencyLimit(99.9, 1500)), pytest.approx(0.001)
    )


@given(
    st.dictionaries(
        st.sampled_from([50.0, 90.0, 95.0, 99.0, 99.9]), st.integers(1, 10**6), min_size=1
    ),
    st.integers(0, 1000),
)
def test_an_slo_reads_its_own_text(limits: dict[float, int], errors: int) -> None:
    rising = zip(sorted(limits), sorted(limits.values()), strict=True)
    slo = Slo(tuple(LatencyLimit(percent, ms) for percent, ms in rising), errors / 1000)
    read = parse_slo(str(slo))
    assert read.latencies == slo.latencies
    assert read.error_rate == pytest.approx(slo.error_rate)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no '='"),
        ("50ms", "has no '='"),
        ("p99=50", "write it with its unit, us, ms or s"),
        ("p99=fast", "'fast' is no time"),
        ("p99=-5ms", "is no time"),
        ("p99=0ms", "is no time"),
        ("p100=5ms", "neither a percentile"),
        ("p0=5ms", "neither a percentile"),
        ("latency=5ms", "neither a percentile"),
        ("p99=5ms,p99=6ms", "p99 is given twice"),
        ("p99=5ms,errors=1", "errors=0.1%"),
        ("p99=5ms,errors=101%", "0% to 100%"),
        ("p99=5ms,errors=1%,errors=2%", "given twice"),
        ("errors=1%", "at least one latency"),
        ("p50=50ms,p99=20ms", "were they swapped"),
        ("p99=5ms,", "has no '='"),
    ],
)
def test_an_unreadable_slo_names_the_part_and_the_format(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match="--slo") as raised:
        parse_slo(text)
    assert reason in raised.value.message


def missed(slo: Slo, result: LoadResult) -> list[str]:
    return slo.missed(result.percentile_ms, result.failed_share)


def test_exceeded_limits_are_listed_in_words() -> None:
    slo = parse_slo("p50=10ms,p99=50ms,errors=10%")
    assert missed(slo, load([10.0] * 98 + [50.0] * 2)) == []
    assert missed(slo, load([10.0] * 98 + [51.0] * 2)) == ["p99 is 51.0 ms"]
    assert missed(slo, load([11.0] * 100, {"503": 25})) == [
        "p50 is 11.0 ms",
        "20.00% of the requests failed",
    ]


def test_without_a_share_no_request_may_fail() -> None:
    assert missed(parse_slo("p99=1s"), load([1.0] * 9999, {"503": 1})) != []


def test_no_answer_meets_no_slo() -> None:
    assert len(missed(parse_slo("p99=1s"), load([]))) == 2


def test_the_strictest_is_of_the_highest_percentile() -> None:
    assert parse_slo("p99=9ms,p50=1ms").strictest == LatencyLimit(99, 9)
