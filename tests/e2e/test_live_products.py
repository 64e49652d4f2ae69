"""Products come, change, go and return while they are served, whatever is killed in between."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from newshelf.catalog.catalog import Catalog
from newshelf.cli.pipeline import settings_from
from newshelf.pipeline.workspace import Workspace
from newshelf.server.state import ServerState
from tests.e2e.products import base64_of, picture_of, product_of, whole_row
from tests.e2e.rollouts import Shop, open_shop, plan_of

pytestmark = pytest.mark.xdist_group("rollouts")

_PATIENCE_S = 120.0
TWIN = "twin"
"""Control; the trained version, its equal, is rolled out."""
BRAND = "Nightjar"
"""Of new products only."""


@pytest.fixture(scope="module")
def shop_of_two(
    packed: Workspace, settings_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A shop with live products, and a second version to roll out."""
    folder = tmp_path_factory.mktemp("live")
    with open_shop(packed, settings_from(settings_file), folder, served=TWIN) as opened:
        yield opened


@pytest.fixture
def http(shop_of_two: Shop) -> Iterator[httpx.Client]:
    gateway = shop_of_two.state.gateway
    assert gateway is not None
    with httpx.Client(
        base_url=gateway.url,
        headers={"Authorization": f"Bearer {shop_of_two.key}"},
        timeout=60,
        trust_env=False,
    ) as opened:
        yield opened


def until(what: Callable[[], Any], wanted: str) -> Any:
    """What ``what`` returns as soon as it is true; a killed gateway may refuse meanwhile."""
    end_s = time.monotonic() + _PATIENCE_S
    found: Any = None
    while time.monotonic() < end_s:
        try:
            if found := what():
                return found
        except httpx.TransportError as error:
            found = repr(error)
        time.sleep(0.1)
    raise AssertionError(f"not reached: {wanted}; last: {found!r}")


def kill(state: ServerState, name: str) -> None:
    """Kill a process of the server, as soon as there is one."""
    ref = until(lambda: state.current().processes.get(name), f"{name} runs")
    os.kill(ref.pid, signal.SIGKILL)


def recommended(http: httpx.Client, unit: str) -> list[str] | None:
    """The new products for a shopper of whom only the unit is sent; None where no model answers."""
    body = {"unit": unit, "filters": {"brand": BRAND}}
    response = http.post("/v1/recommend", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    return [item["id"] for item in answer["items"]] if answer["source"] == "model" else None


def visible_in(http: httpx.Client, item: str) -> list[str]:
    """The versions whose workers know the product's last change; empty unless all do."""
    versions = http.get(f"/v1/items/{item}").json()["versions"]
    seen = [one["version"] for one in versions if one["visible"]]
    return seen if len(seen) == len(versions) else []


def put_twin(http: httpx.Client, catalog: Catalog, item: str) -> str:
    """Store a new product that looks like one of the catalogue; return that one's id."""
    row = whole_row(catalog)
    twin = product_of(catalog, row)
    original, twin["id"], twin["brand"] = twin["id"], item, BRAND
    twin["image"] = base64_of(picture_of(catalog, row))
    response = http.post("/v1/items", json={"items": [twin]})
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["outcome"] == "stored"
    return str(original)


def view(http: httpx.Client, unit: str, item: str) -> None:
    event = {"event_id": f"{unit}-{item}", "event_type": "view", "item_id": item, "unit": unit}
    response = http.post("/v1/feedback", json=event)
    assert response.status_code == 200, response.text


def test_a_product_comes_sells_out_goes_and_returns_whatever_is_killed(
    shop_of_two: Shop, http: httpx.Client
) -> None:
    state: ServerState = shop_of_two.state
    original = put_twin(http, shop_of_two.catalog, "live-1")
    kill(state, "shelf")
    view(http, "newcomer", original)
    until(lambda: visible_in(http, "live-1"), "the product is visible")
    until(lambda: recommended(http, "newcomer") == ["live-1"], "it is recommended")

    response = http.patch("/v1/items/live-1", json={"availability": "out_of_stock"})
    assert response.status_code == 200, response.text
    kill(state, "gateway-1")
    until(lambda: recommended(http, "newcomer") == [], "it is sold out")

    http.patch("/v1/items/live-1", json={"availability": "in_stock"}).raise_for_status()
    until(lambda: recommended(http, "newcomer") == ["live-1"], "it is in stock again")

    http.delete("/v1/items/live-1").raise_for_status()
    until(lambda: recommended(http, "newcomer") == [], "it is gone")
    answer = http.post(
        "/v1/recommend", json={"unit": "newcomer", "candidates": ["live-1", original], "k": 5}
    ).json()
    assert answer["ignored"] == ["live-1"]

    put_twin(http, shop_of_two.catalog, "live-1")
    until(lambda: recommended(http, "newcomer") == ["live-1"], "it is back")


def test_a_price_that_changes_is_filtered_by(shop_of_two: Shop, http: httpx.Client) -> None:
    item = str(shop_of_two.catalog.items["id"][5])
    change = {"price": 987654.0, "availability": "in_stock"}
    http.patch(f"/v1/items/{item}", json=change).raise_for_status()

    def dear() -> list[str]:
        body = {"unit": "anybody", "filters": {"price": {"min": 900_000}}, "k": 5}
        return [one["id"] for one in http.post("/v1/recommend", json=body).json()["items"]]

    until(lambda: dear() == [item], "only the dear product passes")


def test_both_versions_of_a_rollout_know_a_new_product(
    shop_of_two: Shop, http: httpx.Client
) -> None:
    ramp = [{"percent": 50, "min_seconds": 600, "max_seconds": 1200, "min_units": 10_000}]
    shop_of_two.start("live", plan_of(TWIN, shop_of_two.own, ramp=ramp))
    shop_of_two.wait_for("live", "ramp")
    original = put_twin(http, shop_of_two.catalog, "live-2")
    seen = until(
        lambda: len(found := visible_in(http, "live-2")) > 1 and found, "both versions know it"
    )
    assert set(seen) == {shop_of_two.own, TWIN}
    units = [f"shopper-{number}" for number in range(12)]
    for unit in units:
        view(http, unit, original)
    for unit in units:
        until(lambda unit=unit: "live-2" in (recommended(http, unit) or ()), f"{unit} gets it")

    def variants() -> set[str]:
        # The gateway learns of the ramp at its next look at the store.
        for unit in units:
            assert "live-2" in (recommended(http, unit) or ())
        return {one.variant for one in shop_of_two.store.exposures("live") if one.unit in units}

    until(lambda: variants() == {"control", "challenger"}, "both versions answer")
