"""Units are replaced by keyed hashes at the gateway's border."""

from pathlib import Path
from uuid import uuid4

import pytest

from newshelf.gateway.histories import pseudonyms
from newshelf.server.program import GatewayPlan
from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe
from tests.unit.gateway.units import do, merge, path


@pytest.fixture
def gateway_plan(gateway_plan: GatewayPlan, tmp_path: Path) -> GatewayPlan:
    return gateway_plan.model_copy(update={"pseudonym_key": tmp_path / "pseudonym.key"})


def test_with_pseudonyms_no_file_has_the_id_and_all_else_is_the_same(
    start_gateway: StartGateway,
    gateway_plan: GatewayPlan,
    torchserve: FakeTorchServe,
    tmp_path: Path,
) -> None:
    gateway = start_gateway()
    unit, visitor = f"ann-{uuid4()}", f"cookie-{uuid4()}"
    do(gateway, visitor, "item-001")
    merge(gateway, visitor, unit)
    shown = gateway.recommend(unit).json()
    assert torchserve.last_body()["history"] == ["item-001"]
    click = {
        "event_id": "e",
        "event_type": "click",
        "item_id": shown["items"][0]["id"],
        "unit": unit,
    }
    assert gateway.http.post("/v1/feedback", json=click).json()["results"][0]["outcome"] == "stored"
    stored = pseudonyms(gateway_plan.pseudonym_key)(unit)
    assert [one.unit for one in gateway.exposures()] == [stored]
    assert len(gateway.http.get(path(unit)).json()["feedback"]) == 2
    assert gateway.http.get(path(stored)).json()["feedback"] == []
    for file in tmp_path.iterdir():
        data = file.read_bytes() if file.is_file() else b""
        assert unit.encode() not in data
        assert visitor.encode() not in data
    assert gateway.http.delete(path(unit)).json()["feedback"] == 2
    late = gateway.http.post("/v1/feedback", json={**click, "event_id": "late"})
    assert (late.status_code, late.json()["field"]) == (410, "unit")
    assert list(gateway.store.feedback()) == []


def test_a_pseudonym_depends_on_the_key_and_nobody_has_none(tmp_path: Path) -> None:
    first, second = pseudonyms(tmp_path / "1"), pseudonyms(tmp_path / "2")
    assert first("ann") == pseudonyms(tmp_path / "1")("ann")
    assert len({first("ann"), first("bob"), second("ann"), "ann"}) == 4
    assert first("") == ""
    assert pseudonyms(None)("ann") == "ann"
