"""What a unit bought, by count and time, and nothing that it did not buy."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.gateway.recommend import purchases
from newshelf.store.units import Interaction
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status

DAY_US = 86_400_000_000
BOUGHT = [
    ("item-001", "purchase", 90),
    ("item-002", "purchase", 200),
    ("item-002", "purchase", 5),
    ("item-003", "view", 0),
    ("item-004", "purchase", 1),
    ("item-199", "purchase", 0),
    ("delisted", "purchase", 1 / 1440),
]
"""Product, event, days ago; ``item-199`` is out of stock in the fallback."""


def buy(gateway: Gateway, unit: str = "u") -> None:
    now = datetime.now(UTC)
    events = [
        {
            "event_id": f"{unit}{at}",
            "event_type": event,
            "item_id": item,
            "unit": unit,
            "at": (now - timedelta(days=days)).isoformat(),
        }
        for at, (item, event, days) in enumerate(BOUGHT)
    ]
    answer = gateway.http.post("/v1/feedback", json={"events": events})
    assert answer.json()["accepted"] == len(events)


def test_purchases_are_the_candidates_by_count_and_time(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    buy(gateway)
    answer = gateway.recommend("u", kind="buy_again", history=["item-001"], k=9)
    body = torchserve.last_body()
    assert (body["kind"], body["history"], body["k"]) == ("buy_again", [], 9)
    # 5 and 200 days ago; now; a minute ago; yesterday; 90 days ago.
    assert body["candidates"] == ["item-002", "item-199", "delisted", "item-004", "item-001"]
    assert answer.json()["ignored"] == ["delisted"]
    assert gateway.exposures()[-1].kind == "buy_again"


def test_named_candidates_are_kept_to(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    buy(gateway)
    gateway.recommend("u", kind="buy_again", candidates=["item-003", "item-001", "item-004"])
    assert torchserve.last_body()["candidates"] == ["item-004", "item-001"]


@pytest.mark.parametrize("candidates", [None, ["item-003"]])
def test_without_purchases_the_answer_is_empty_and_recorded(
    start_gateway: StartGateway, torchserve: FakeTorchServe, candidates: list[str] | None
) -> None:
    gateway = start_gateway()
    buy(gateway, "another")
    fields = {"candidates": candidates} if candidates else {}
    answer = gateway.recommend("u", kind="buy_again", cursor="", **fields)
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    assert "cursor" not in answer.json()
    assert torchserve.asked == []
    [exposure] = gateway.exposures()
    assert (exposure.kind, exposure.items) == ("buy_again", ())


def test_purchases_that_the_model_does_not_know_are_no_error(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    event = {"event_id": "e", "event_type": "purchase", "item_id": "gone", "unit": "u"}
    gateway.http.post("/v1/feedback", json=event)
    answer = gateway.recommend("u", kind="buy_again")
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    # The same candidates of another kind are the client's mistake.
    assert gateway.recommend("u", candidates=["gone"]).status_code == 404


def test_the_fallback_keeps_the_order(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    buy(gateway)
    torchserve.always = status(503)
    answer = gateway.recommend("u", kind="buy_again", k=9).json()
    assert [(item["id"], item["source"]) for item in answer["items"]] == [
        ("item-002", "buy_again"),
        ("item-004", "buy_again"),
        ("item-001", "buy_again"),
    ]


@given(
    st.lists(
        st.builds(
            Interaction,
            st.sampled_from("abc"),
            st.sampled_from(["view", "purchase"]),
            st.integers(0, 1000).map(lambda days: days * DAY_US),
        )
    )
)
def test_a_further_purchase_never_lowers_a_product(done: list[Interaction]) -> None:
    now = 1001 * DAY_US
    before = purchases(done)
    assert set(before) == {one.item_id for one in done if one.event_type == "purchase"}
    after = purchases([*done, Interaction("a", "purchase", now)])
    assert after.index("a") <= (before.index("a") if "a" in before else len(before))
