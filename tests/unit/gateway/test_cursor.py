"""Feeds: pages without repeats, and cursors that cannot be forged, lent or kept too long."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.config import Limits
from newshelf.errors import InvalidField
from newshelf.gateway.cursor import Cursors
from newshelf.gateway.schemas import parse_recommend_body
from newshelf.store.units import Interaction
from tests.fake_predictors import FAKE_IDS
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status


def page(gateway: Gateway, cursor: str = "", **fields: Any) -> dict[str, Any]:
    answer = gateway.recommend(**{"unit": "u", "k": 30, "cursor": cursor, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["id"] for item in answer["items"]]


def test_the_pages_of_a_feed_have_every_product_once(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = page(gateway, cursor, history=["item-001"], exclude=["item-002"])
        seen += ids(answer)
        cursor = answer.get("cursor")
    assert sorted(seen) == sorted(set(FAKE_IDS) - {"item-001", "item-002"})


def test_the_fallback_repeats_nothing_either(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    first = page(gateway)
    torchserve.always = status(503)
    second = page(gateway, first["cursor"])
    assert (first["source"], second["source"]) == ("model", "fallback")
    assert set(ids(first)).isdisjoint(ids(second))


def test_without_a_cursor_there_is_none(start_gateway: StartGateway) -> None:
    assert "cursor" not in start_gateway().recommend().json()


def test_a_placement_is_a_feed(start_gateway: StartGateway, tmp_path: Path) -> None:
    file = tmp_path / "placements.toml"
    file.write_text("[feed]\nfeed = true\nk = 5\n[home]\n")
    gateway = start_gateway(placements=str(file))
    body = {"unit": "u", "placement": "feed"}
    first = gateway.http.post("/v1/recommend", json=body).json()
    second = gateway.http.post("/v1/recommend", json={**body, "cursor": first["cursor"]}).json()
    assert set(ids(first)).isdisjoint(ids(second))
    similar = {"unit": "u", "placement": "feed", "item": "item-001"}
    assert "cursor" not in gateway.http.post("/v1/similar", json=similar).json()
    moved = gateway.recommend(unit="u", placement="home", cursor=first["cursor"])
    assert (moved.status_code, moved.json()["field"]) == (422, "cursor")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unit": "another"}, "another unit"),
        ({"filters": {"brand": "Acme"}}, "filters"),
        ({"kind": "popular"}, "kind"),
        ({"cursor": "never"}, "not issued"),
        ({"cursor": "ä"}, "not issued"),
        ({"cursor": "x" * 5_000}, "not issued"),
    ],
)
def test_a_cursor_is_of_one_unit_and_one_request(
    start_gateway: StartGateway, fields: dict[str, Any], said: str
) -> None:
    gateway = start_gateway()
    cursor = page(gateway)["cursor"]
    refused = gateway.recommend(**{"unit": "u", "cursor": cursor, **fields})
    assert (refused.status_code, refused.json()["field"]) == (422, "cursor")
    assert said in refused.json()["message"]
    # More products on a page are no other feed.
    assert len(ids(page(gateway, cursor, k=7))) == 7


def test_an_old_cursor_is_refused(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_gateway(cursor_s=60)
    cursor = page(gateway)["cursor"]
    now = time.time
    monkeypatch.setattr("newshelf.gateway.cursor.time.time", lambda: now() + 59)
    page(gateway, cursor)
    monkeypatch.setattr("newshelf.gateway.cursor.time.time", lambda: now() + 62)
    refused = gateway.recommend(unit="u", cursor=cursor)
    assert (refused.status_code, refused.json()["field"]) == (422, "cursor")
    assert "cursor_s" in refused.json()["message"]


def test_a_cursor_whose_answers_are_gone_is_refused(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    cursor = page(gateway)["cursor"]
    with gateway.store.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM exposures")
    refused = gateway.recommend(unit="u", cursor=cursor)
    assert (refused.status_code, refused.json()["field"]) == (422, "cursor")


class Nothing:
    async def shown(self, request_ids: object) -> list[str]:
        raise AssertionError

    async def history(self, unit: str, limit: int) -> list[Interaction]:
        raise AssertionError


QUERY = parse_recommend_body(b'{"unit": "u", "cursor": ""}', "", Limits())
CURSORS = Cursors(b"k" * 32, 60, Nothing())


def test_a_feed_ends_before_its_cursor_is_long() -> None:
    cursor, longest, pages = "", 0, 0
    while cursor is not None:
        earlier = CURSORS._read(QUERY, cursor) if cursor else b""
        pages, longest = pages + 1, max(longest, len(cursor))
        cursor = CURSORS.following(QUERY, earlier, f"{pages:032x}")
    assert pages == 51
    assert longest < 1_200


@settings(deadline=None)
@given(at=st.integers(0, 59), bit=st.integers(0, 7))
def test_no_bit_of_a_cursor_can_be_changed(at: int, bit: int) -> None:
    cursor = CURSORS.following(QUERY, b"", "0" * 32)
    assert cursor is not None
    changed = bytearray(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    changed[at % len(changed)] ^= 1 << bit
    with pytest.raises(InvalidField):
        CURSORS._read(QUERY, urlsafe_b64encode(changed).decode())
