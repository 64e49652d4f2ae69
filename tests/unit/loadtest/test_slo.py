from pathlib import Path
from typing import get_args

import pytest

from loadtest import traffic
from loadtest.slo import SloSet, read_slo
from loadtest.tuning.slo import LatencyLimit, Slo
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT

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
