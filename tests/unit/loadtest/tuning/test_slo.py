import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.tuning.slo import LatencyLimit, Slo, parse_slo
from newshelf.errors import SettingsError
from tests.unit.loadtest.tuning.conftest import load


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


def test_exceeded_limits_are_listed_in_words() -> None:
    slo = parse_slo("p50=10ms,p99=50ms,errors=10%")
    assert slo.missed(load([10.0] * 98 + [50.0] * 2)) == []
    assert slo.missed(load([10.0] * 98 + [51.0] * 2)) == ["p99 is 51.0 ms"]
    assert slo.missed(load([11.0] * 100, {"503": 25})) == [
        "p50 is 11.0 ms",
        "20.00% of the requests failed",
    ]


def test_without_a_share_no_request_may_fail() -> None:
    assert parse_slo("p99=1s").missed(load([1.0] * 9999, {"503": 1})) != []


def test_no_answer_meets_no_slo() -> None:
    assert len(parse_slo("p99=1s").missed(load([]))) == 2


def test_the_strictest_is_of_the_highest_percentile() -> None:
    assert parse_slo("p99=9ms,p50=1ms").strictest == LatencyLimit(99, 9)
