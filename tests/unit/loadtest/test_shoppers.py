"""Shoppers of a gateway: what they send, what they check, and a load on a real gateway."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from loadtest.acknowledged import GatewayStore
from loadtest.recorder import FALLBACK, RIGHT, WRONG
from loadtest.report import check_run, print_run, write_run
from loadtest.requests import Rendered
from loadtest.run import run_load
from loadtest.scenarios import LoadPlan
from loadtest.shoppers import LOST, STALE, Kept, Shoppers
from loadtest.slo import Slo, SloSet
from loadtest.traffic import ShopTraffic
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.errors import ServerError
from tests.fake_predictors import FAKE_IDS
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status
from tests.unit.loadtest.conftest import errors

TYPES = ("Jewellery > Rings", "Home > Lighting")
BROWSE = {"recommend": 1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A catalogue of the products that the fake recommender knows."""
    rows = [f"{name},thing {at} of ours,{TYPES[at % 2]}" for at, name in enumerate(FAKE_IDS)]
    path = tmp_path / "shop"
    path.mkdir()
    (path / "items.csv").write_text("\n".join(["id,title,product_type", *rows]))
    return path


@pytest.fixture
def catalog(folder: Path) -> Catalog:
    return read_catalog(folder)


def shoppers(catalog: Catalog, **changes: object) -> Shoppers:
    traffic = ShopTraffic(**{"bad_share": 0.0, "mix": BROWSE, "units": 1, **changes})
    return Shoppers(catalog, traffic, np.random.default_rng(3), "test")


def answer(*ids: str, source: str = "model", of: str = "model", number: int = 1) -> bytes:
    items = [{"id": one, "score": 1.0, "source": of} for one in ids]
    return json.dumps({"items": items, "source": source, "request_id": f"r{number}"}).encode()


def told(request: Rendered, body: bytes) -> str:
    assert request.check is not None
    return request.check(body)


def acknowledgement(request: Rendered, outcome: str = "stored") -> bytes:
    events = json.loads(request.body(0))["events"]
    results = [{"event_id": one["event_id"], "outcome": outcome} for one in events]
    return json.dumps({"accepted": len(results), "results": results}).encode()


def test_shoppers_click_what_they_like_and_the_request_does_not_say_it(catalog: Catalog) -> None:
    browsing = shoppers(catalog, taste=1.0, chance=0.0, buys=0.0)
    request = next(browsing)
    assert json.loads(request.body(0)).keys() == {"unit", "k"}
    assert told(request, answer("item-000", "item-001", "item-002", "item-003")) == RIGHT
    feedback = next(browsing)
    assert feedback.path == "/v1/feedback"
    clicked = {one["item_id"] for one in json.loads(feedback.body(0))["events"]}
    assert clicked in ({"item-000", "item-002"}, {"item-001", "item-003"})
    assert told(feedback, acknowledgement(feedback)) == RIGHT
    assert next(browsing).path == "/v1/recommend"
    assert browsing.kept.answers == {"test-0": ["r1"]}
    assert len(browsing.kept.events["test-0"]) == 2


def test_who_buys_sends_the_cart_and_the_purchase_too(catalog: Catalog) -> None:
    browsing = shoppers(catalog, taste=1.0, chance=1.0, buys=1.0)
    told(next(browsing), answer("item-000"))
    events = json.loads(next(browsing).body(0))["events"]
    assert [one["event_type"] for one in events] == ["click", "cart", "purchase"]
    assert [one.get("value") for one in events] == [None, None, 10.0]


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (answer(), WRONG),
        (answer("item-001", "item-001"), WRONG),
        (answer(*FAKE_IDS[:11]), WRONG),
        (answer("item-001", source="fallback"), FALLBACK),
    ],
)
def test_an_answer_is_checked(catalog: Catalog, body: bytes, result: str) -> None:
    assert told(next(shoppers(catalog)), body) == result


def test_an_event_that_is_not_kept_is_an_error_and_not_acknowledged(catalog: Catalog) -> None:
    browsing = shoppers(catalog, taste=1.0, chance=1.0)
    told(next(browsing), answer("item-000"))
    feedback = next(browsing)
    assert told(feedback, acknowledgement(feedback, "unknown_item")) == LOST
    assert browsing.kept.events == {"test-0": []}


def test_an_answer_must_not_have_what_the_shopper_has_clicked_before(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    browsing = shoppers(catalog, taste=1.0, chance=1.0)
    told(next(browsing), answer("item-000"))
    at_once = next(browsing)
    told(at_once, acknowledgement(at_once))
    # Another process of the gateway may not know it yet.
    assert told(next(browsing), answer("item-000", number=2)) == RIGHT
    monkeypatch.setattr("loadtest.shoppers._KNOWN_AFTER_NS", 0)
    later = [one for one in (next(browsing), next(browsing)) if one.kind == "recommend"][-1]
    assert told(later, answer("item-000", number=3)) == STALE
    assert told(later, answer("item-000", of="pinned", number=4)) == RIGHT


def load(gateway: Gateway, folder: Path, **changes: object) -> LoadPlan:
    usual = {"seconds": 4.0, "warm_up_s": 0.5, "rate": 25.0, "traffic": ShopTraffic(bad_share=0.1)}
    return LoadPlan(
        url=gateway.url,
        headers={"Authorization": gateway.http.headers["Authorization"]},
        catalog=folder,
        **{**usual, **changes},  # type: ignore[arg-type]
    )


def test_a_load_is_answered_in_every_kind_and_nothing_acknowledged_is_lost(
    start_gateway: StartGateway,
    folder: Path,
    tmp_path: Path,
) -> None:
    gateway = start_gateway()
    mix = {"recommend": 3, "similar": 2, "search": 1, "items": 2}
    traffic = ShopTraffic(bad_share=0.1, mix=mix, chance=0.3, units=20, shoppers=5)
    record = run_load(load(gateway, folder, traffic=traffic, processes=2), command="it")
    # On a machine that stands still, a history is not read in time, and the answer does without.
    assert errors(record).keys() <= {STALE}
    assert set(record.kinds()) == {"recommend", "similar", "search", "feedback", "items", "bad"}
    found = record.acknowledged
    assert found is not None
    assert found.lost == ()
    # Three more were shown to check the gateway before the run.
    assert found.answers == len(gateway.exposures()) - 3
    assert found.events == len(list(gateway.store.feedback())) > 0
    # The load's own products are gone.
    assert gateway.http.get("/v1/items").json()["items"] == []
    run = check_run(record, SloSet(Slo(fallback_rate=0.5)))
    assert run.kept, run.sentence()
    assert "the event store has all of them" in write_run(run, tmp_path).read_text()


def test_a_lost_event_fails_the_run_and_is_named(
    start_gateway: StartGateway,
    folder: Path,
) -> None:
    gateway = start_gateway()
    record = run_load(load(gateway, folder, seconds=1.0), command="it")
    store = GatewayStore(gateway.url, {"Authorization": gateway.http.headers["Authorization"]})
    found = store.find(Kept({"nobody": ["r1"]}, {"nobody": ["e1"]}, ["never-made"]))
    assert found.lost == ("r1", "e1")
    run = check_run(record.model_copy(update={"acknowledged": found}), None)
    assert not run.kept
    out = Console(record=True, width=200)
    print_run(run, out)
    assert "2 ARE LOST, such as r1, e1" in out.export_text()


def test_a_fallback_counts_against_its_limit(
    start_gateway: StartGateway,
    torchserve: FakeTorchServe,
    folder: Path,
) -> None:
    torchserve.always = status(503)
    traffic = ShopTraffic(mix={"recommend": 1}, bad_share=0, taste=0, chance=0)
    record = run_load(load(start_gateway(), folder, traffic=traffic, seconds=2.0), command="it")
    run = check_run(record, SloSet(Slo(fallback_rate=0.01)))
    (verdict,) = run.verdicts
    assert (verdict.measured, run.kept) == (1.0, False)
    assert errors(record) == {}


def test_a_key_that_may_not_look_into_the_store_is_refused_before_the_load(
    start_gateway: StartGateway,
    folder: Path,
) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    gateway = start_gateway()
    scopes = ("read", "feedback", "items")
    now = datetime.now(UTC)
    secret = gateway.keys.add("load", now=now, expires=None, rate_per_s=100, scopes=scopes)
    asked = load(gateway, folder)
    asked = LoadPlan(**{**asked.__dict__, "headers": {"Authorization": f"Bearer {secret}"}})
    while True:
        with pytest.raises(ServerError) as raised:
            run_load(asked, command="it")
        if "not known" not in raised.value.message:
            break
    assert "'admin'" in raised.value.message
    assert gateway.exposures() == [] or len(gateway.exposures()) < 10
