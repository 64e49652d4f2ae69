"""Recommendations for a file of units, by a gateway on a real port."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pandas as pd
import pytest
from rich.console import Console

from newshelf.cli.batch import FailedUnit, read_units, recommend_all
from newshelf.errors import SetupError
from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.with_suffix(".txt").write_text("\ufeffu1\n\n 007 \nu1\n"),
        lambda path: path.with_suffix(".csv").write_text("name,unit\nx,u1\ny,007\nz,\n"),
        lambda path: path.with_suffix(".csv").write_text("user_id\nu1\n007\n"),
        lambda path: path.with_suffix(".csv").write_text("anything\nu1\n007\n"),
        lambda path: pd.DataFrame({"unit": ["u1", None, "007"]}).to_parquet(
            path.with_suffix(".parquet")
        ),
    ],
)
def test_units_are_read_as_text(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "units")
    [file] = tmp_path.iterdir()
    assert read_units(file) == ["u1", "007"]


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("missing.csv", None),
        ("empty.txt", ""),
        ("two.csv", "a,b\n1,2\n"),
        ("none.csv", ""),
        ("floats.parquet", pd.DataFrame({"unit": [1.0, 2.5]})),
        ("broken.parquet", "no parquet"),
    ],
)
def test_a_file_without_units_is_refused(
    tmp_path: Path, name: str, frame: pd.DataFrame | str | None
) -> None:
    path = tmp_path / name
    if isinstance(frame, str):
        path.write_text(frame)
    elif frame is not None:
        frame.to_parquet(path)
    with pytest.raises(SetupError, match=name):
        read_units(path)


def test_every_unit_has_its_rows_and_a_failing_one_is_reported(
    start_gateway: StartGateway, torchserve: FakeTorchServe, tmp_path: Path
) -> None:
    gateway, out = start_gateway(), tmp_path / "out.parquet"
    units = [*(f"u{number}" for number in range(40)), "x" * 300, "last"]
    out.write_text("the last batch")

    def run(key: str) -> list[FailedUnit]:
        fields, console = {"k": 3, "kind": "popular"}, Console(quiet=True)
        return recommend_all(units, fields, out, url=gateway.url, key=key, console=console)

    [failed] = run(gateway.http.headers["authorization"].removeprefix("Bearer "))
    assert (failed.unit, failed.status) == ("x" * 300, 422)
    assert '"field":"unit"' in failed.message
    found = pd.read_parquet(out)
    assert list(found["unit"]) == [unit for unit in units if len(unit) < 300 for _ in range(3)]
    assert list(found["position"]) == [1, 2, 3] * 41
    shown = {
        (one.unit, item.item_id, item.score, item.source, one.request_id)
        for one in gateway.exposures()
        for item in one.items
    }
    columns = ["unit", "item_id", "score", "source", "request_id"]
    assert set(found[columns].itertuples(index=False, name=None)) == shown
    listed = pd.read_csv(tmp_path / "out.parquet.failed.csv")
    assert list(listed["status"]) == [422]

    assert {one.status for one in run("nsk_wrong")} == {401}
    assert len(pd.read_parquet(out)) == 0


def test_a_busy_gateway_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter(
        [
            httpx.Response(429, headers={"retry-after": "0"}, json={}),
            httpx.Response(200, json={"items": [], "request_id": "r"}),
            *[httpx.Response(503, headers={"retry-after": "0"}, text="no JSON")] * 5,
        ]
    )
    client = httpx.Client
    transport = httpx.MockTransport(lambda _request: next(answers))
    monkeypatch.setattr(
        httpx, "Client", lambda **options: client(**{**options, "transport": transport})
    )
    monkeypatch.setattr("newshelf.cli.batch._CLIENTS", 1)
    failed = recommend_all(
        ["a", "b"],
        {},
        tmp_path / "out.parquet",
        url="http://gateway",
        key="k",
        console=Console(quiet=True),
    )
    assert failed == [FailedUnit("b", 503, "no JSON")]
    assert next(answers, None) is None
