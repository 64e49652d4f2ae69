"""A person's data over HTTP: merged, shown, erased."""

import pytest

from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe
from tests.unit.gateway.units import do, merge, path

UNITS = ["ann/née Ó", "merge", "50%", "../a?b#c"]


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_kept_is_shown_and_erased(
    start_gateway: StartGateway, torchserve: FakeTorchServe, unit: str
) -> None:
    gateway = start_gateway()
    do(gateway, "cookie", "item-001")
    request_id = gateway.recommend(unit, history=["item-002"]).json()["request_id"]
    do(gateway, unit, "item-003")
    assert merge(gateway, "cookie", unit).status_code == 200
    assert merge(gateway, "cookie", unit).json() == {"visitor": "cookie", "unit": unit}
    gateway.recommend(unit)
    assert torchserve.last_body()["history"] == ["item-001", "item-003"]
    shown = gateway.http.get(path(unit)).json()
    assert (shown["unit"], shown["visitors"], shown["erased"]) == (unit, ["cookie"], False)
    assert [one["item_id"] for one in shown["feedback"]] == ["item-001", "item-003"]
    assert shown["exposures"][0]["request_id"] == request_id
    assert shown["first_seen"] < shown["last_seen"]
    erased = gateway.http.delete(path(unit))
    assert erased.json() == {"visitors": 1, "exposures": 2, "feedback": 2}
    gone = gateway.http.get(path(unit)).json()
    assert (gone["exposures"], gone["feedback"], gone["erased"]) == ([], [], True)
    assert gateway.recommend(unit).status_code == 200
    assert "history" not in torchserve.last_body()
    assert gateway.exposures() == []
    page = gateway.http.get("/metrics").text
    assert unit == "merge" or ('route="/v1/units/{unit}"' in page and unit not in page)


def test_what_cannot_be_merged_says_which_field(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    assert merge(gateway, "a", "b").status_code == 200
    gateway.store.units.erase("gone", settle_s=0)
    for visitor, unit, code, field in (
        ("a", "c", 409, "visitor"),
        ("b", "a", 409, "unit"),
        ("a", "a", 422, "unit"),
        ("x" * 201, "a", 422, "visitor"),
        ("gone", "a", 410, "visitor"),
        ("a2", "gone", 410, "unit"),
    ):
        refused = merge(gateway, visitor, unit)
        assert (refused.status_code, refused.json()["field"]) == (code, field)
    long = gateway.http.get(path("x" * 300))
    assert (long.status_code, long.json()["field"]) == (422, "unit")
    assert gateway.http.post("/v1/units/merge", json={"visitor": "a"}).json()["field"] == "unit"


def test_only_admins_see_a_person(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    assert gateway.http.get(path("ann")).status_code == 200
    bare = gateway.http.get(path("ann"), headers={"Authorization": "Bearer nsk_x"})
    assert bare.status_code == 401
