"""A unit alone is enough: its history comes from the event store."""

import time
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from newshelf.config import HistorySettings
from newshelf.gateway.histories import weighed
from newshelf.store.records import Feedback
from newshelf.store.units import Interaction
from newshelf.store.write import WriteBatch
from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe
from tests.unit.gateway.units import do

DAY_US = 86_400_000_000


def test_a_units_last_products_are_its_history_at_once(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    assert gateway.recommend("u1").status_code == 200
    assert "history" not in torchserve.last_body()
    do(gateway, "u1", "item-001", "item-002", event_type="favourite")
    do(gateway, "u2", "item-007")
    answer = gateway.recommend("u1").json()
    assert answer["source"] == "model"
    assert torchserve.last_body()["history"] == ["item-001", "item-002"]
    do(gateway, "u1", "item-003", "item-001")
    gateway.recommend("u1")
    assert torchserve.last_body()["history"] == ["item-002", "item-003", "item-001"]
    gateway.store.units.merge("u2", "u1")
    while "item-007" not in torchserve.last_body()["history"]:
        gateway.recommend("u1")
    page = gateway.http.get("/metrics").text
    assert 'newshelf_gateway_histories_total{source="store"}' in page


def test_a_history_in_the_request_wins_and_an_empty_one_means_none(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    do(gateway, "u1", "item-001")
    for history in (["item-005"], []):
        gateway.recommend("u1", history=history)
        assert torchserve.last_body()["history"] == history


def test_feedback_to_another_process_is_seen_within_a_second(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    do(gateway, "u1", "item-001")
    gateway.recommend("u1")
    event = Feedback(
        event_id="e", event_type="click", item_id="item-002", at=datetime.now(UTC), unit="u1"
    )
    gateway.store.write(WriteBatch(feedback=[event]))
    began_s = time.monotonic()
    while torchserve.last_body()["history"] != ["item-001", "item-002"]:
        gateway.recommend("u1")
        assert time.monotonic() - began_s < 30


def test_products_that_the_client_did_not_name_are_not_told_as_ignored(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    do(gateway, "u1", "delisted", "item-001")
    answer = gateway.recommend("u1", candidates=["item-002", "unknown"]).json()
    assert torchserve.last_body()["history"] == ["delisted", "item-001"]
    assert answer["ignored"] == ["unknown"]
    named = gateway.recommend("u1", history=["delisted", "item-001"]).json()
    assert named["ignored"] == ["delisted"]


def test_no_history_is_read_where_the_settings_say_none(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway(history={"items": 0})
    do(gateway, "u1", "item-001")
    gateway.recommend("u1")
    assert "history" not in torchserve.last_body()


SETTINGS = HistorySettings(items=2, half_life_days=1, view=0)


def test_types_and_age_weigh_and_the_order_is_that_of_time() -> None:
    def at(days: float, item: str, event_type: str) -> Interaction:
        return Interaction(item, event_type, round(100 * DAY_US - days * DAY_US))

    seen = [
        at(0, "viewed", "view"),
        at(0, "clicked", "click"),
        at(1, "bought", "purchase"),
        at(3, "long ago", "purchase"),
    ]
    assert weighed(seen, SETTINGS) == ["bought", "clicked"]
    twice = [*seen, at(3, "long ago", "purchase"), at(3, "long ago", "purchase")]
    more = HistorySettings(items=1, half_life_days=3, view=0)
    assert weighed(twice, more) == ["long ago"]
    assert weighed([], SETTINGS) == []
    assert weighed(seen[:1], SETTINGS) == []


TYPES = st.sampled_from(["view", "click", "favourite", "cart", "purchase"])


@given(st.lists(st.tuples(st.sampled_from("abcdef"), TYPES, st.integers(0, 10**15))))
def test_a_history_is_distinct_bounded_and_sorted(seen: list[tuple[str, str, int]]) -> None:
    newest_first = sorted((Interaction(*one) for one in seen), key=lambda one: -one.at_us)
    history = weighed(newest_first, HistorySettings(items=3))
    assert len(history) == min(3, len({one.item_id for one in newest_first}))
    last = {one.item_id: one.at_us for one in reversed(newest_first)}
    times = [last[item] for item in history]
    assert times == sorted(times)
