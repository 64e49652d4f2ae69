"""Products over HTTP: stored, changed, deleted; a bad one says which field, and harms no other."""

import base64
import io
import json
import zlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from newshelf.gateway.items import ItemOut, ItemsOut
from tests.gateways import Gateway, StartGateway

RING = {"id": "ring", "title": "Jade <b>ring</b>", "price": 12.5, "season": "spring"}


def picture(size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "green").save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that states 60,000 × 60,000 pixels."""
    data = bytearray(picture())
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def large() -> bytes:
    """A PNG that states 8,000 × 8,000 pixels."""
    data = bytearray(picture())
    data[16:24] = (8_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def put(gateway: Gateway, *items: Any) -> Any:
    body = json.dumps({"items": items})
    return gateway.http.post("/v1/items", content=body)


def path(item: str) -> str:
    return f"/v1/items/{quote(item, safe='')}"


def test_a_product_is_stored_shown_changed_and_deleted(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    answer = put(gateway, RING | {"image": base64_of(picture())})
    assert answer.status_code == 200
    ItemsOut.model_validate(answer.json())
    assert answer.json()["results"] == [{"id": "ring", "outcome": "stored", "revision": 1}]
    shown = gateway.http.get(path("ring")).json()
    assert (shown["title"], shown["price"]) == ("Jade ring", 12.5)
    assert shown["attributes"] == {"season": "spring"}
    assert (shown["revision"], shown["deleted"], shown["versions"]) == (1, False, [])
    assert gateway.store.items.picture(shown["picture"].removeprefix("sha256:")) == picture()
    # The same again is no change.
    assert (
        put(gateway, RING | {"image": base64_of(picture())}).json()["results"][0]["revision"] == 1
    )
    changed = gateway.http.patch(
        path("ring"), json={"availability": "out_of_stock", "season": None, "image": None}
    ).json()
    assert (changed["revision"], changed["availability"]) == (2, "out_of_stock")
    assert "attributes" not in changed
    assert "picture" not in changed
    new = gateway.http.patch(path("ring"), json={"image": base64_of(picture((9, 9)))}).json()
    assert (new["revision"], "picture" in new) == (3, True)
    for _ in range(2):
        deleted = gateway.http.delete(path("ring")).json()
        assert (deleted["revision"], deleted["deleted"]) == (4, True)
    assert gateway.http.get(path("ring")).json()["deleted"]
    assert gateway.http.patch(path("ring"), json={"price": 1.0}).status_code == 404
    # Back on the shelf.
    assert put(gateway, RING).json()["results"][0]["revision"] == 5
    assert gateway.store.items.last_seq() == 5


def test_the_state_of_each_version_is_told(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    put(gateway, RING)
    seq = gateway.store.items.last_seq()
    gateway.store.items.published("host", "v1", seq - 1)
    gateway.store.items.published("host", "v2", seq)
    shown = gateway.http.get(path("ring")).json()
    assert [(one["version"], one["visible"]) for one in shown["versions"]] == [
        ("v1", False),
        ("v2", True),
    ]
    assert {"encoded", "problem"} <= set(shown["versions"][0])


def test_pictures_may_be_parts_of_a_form(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    items = json.dumps({"items": [RING, {"id": "véase/1"}, {"id": "lamp", "title": "Lamp"}]})
    files = {"véase/1": ("a.png", picture()), "ring": ("b.png", picture((9, 9)))}
    answer = gateway.http.post("/v1/items", data={"items": items}, files=files)
    assert answer.json()["accepted"] == 3
    assert "picture" in gateway.http.get(path("véase/1")).json()
    assert "picture" not in gateway.http.get(path("lamp")).json()
    unused = gateway.http.post("/v1/items", data={"items": items}, files={"rign": picture()})
    assert (unused.status_code, unused.json()["field"]) == (422, "rign")
    bad = gateway.http.post("/v1/items", data={"items": items}, files={"ring": b"<html>"})
    assert bad.json()["results"][0]["field"] == "items[0].image"
    # Its picture's part was refused.
    assert bad.json()["results"][1]["field"] == "items[1]"
    assert bad.json()["accepted"] == 1


BAD = [
    ({"id": "x"}, "items[0]", 422),
    ({"id": "x", "title": " <b></b> "}, "items[0]", 422),
    ({"title": "no id"}, "items[0].id", 422),
    ({"id": "x" * 300, "title": "t"}, "items[0].id", 422),
    ({"id": 7, "title": "t"}, "items[0].id", 422),
    ({"id": "x", "title": "t", "price": float("nan")}, "items[0].price", 422),
    ({"id": "x", "title": "t", "price": -1.0}, "items[0].price", 422),
    ({"id": "x", "title": "t", "price": "1"}, "items[0].price", 422),
    ({"id": "x", "title": "t", "availability": "maybe"}, "items[0].availability", 422),
    ({"id": "x", "title": "t", "season": ["spring"]}, "items[0].season", 422),
    ({"id": "x", "title": "t", "season": float("inf")}, "items[0].season", 422),
    ({"id": "x", "title": "t", "season": True}, "items[0].season", 422),
    ({"id": "x", "title": "t", "attributes": {"brand": "b"}}, "items[0].brand", 422),
    ({"id": "x", "title": "t", "s" * 101: "v"}, f"items[0].{'s' * 101}", 422),
    ({"id": "x", "title": "t", **{f"c{n}": n for n in range(60)}}, "items[0].attributes", 422),
    ({"id": "x", "title": "t" * 20_000}, "items[0].title", 422),
    ({"id": "x", "image": "http://x/y.jpg"}, "items[0].image", 422),
    ({"id": "x", "image": 7}, "items[0].image", 422),
    ({"id": "x", "image": base64_of(b"II*\0")}, "items[0].image", 422),
    ({"id": "x", "image": base64_of(picture()[:20])}, "items[0].image", 422),
    ({"id": "x", "image": base64_of(bomb())}, "items[0].image", 422),
    ({"id": "x", "image": base64_of(large())}, "items[0].image", 413),
    ("ring", "items[0]", 422),
    (None, "items[0]", 422),
]


@pytest.mark.parametrize(("item", "field", "status"), BAD, ids=range(len(BAD)))
def test_a_bad_product_says_which_field_and_its_neighbours_are_stored(
    start_gateway: StartGateway, item: Any, field: str, status: int
) -> None:
    gateway = start_gateway()
    alone = put(gateway, item)
    assert (alone.status_code, alone.json()["field"]) == (status, field), alone.text
    both = put(gateway, item, RING)
    assert (both.status_code, both.json()["accepted"]) == (200, 1)
    refused, stored = ItemsOut.model_validate(both.json()).results
    assert (refused.outcome, refused.field) == ("invalid", field)
    assert (stored.id, stored.outcome) == ("ring", "stored")
    assert [one.id for one in gateway.store.items.page()] == ["ring"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"[]", 422, None),
        (b"{}", 422, "items"),
        (b'{"items": []}', 422, "items"),
        (b'{"items": 3, "other": 1}', 422, "items"),
        (b'{"items": [NaN', 400, None),
        (b'{"items": [{"id": "\\ud800", "price": NaN}]}', 400, None),
        (b"[" * 9_000 + b"NaN", 400, None),
        (json.dumps({"items": [RING] * 1_001}).encode(), 413, "items"),
    ],
)
def test_a_request_that_is_none_stores_nothing(
    start_gateway: StartGateway, body: bytes, status: int, field: str | None
) -> None:
    gateway = start_gateway()
    answer = gateway.http.post("/v1/items", content=body)
    assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
    assert gateway.store.items.page() == []


def test_unknown_products_and_bad_changes(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    put(gateway, RING)
    for answer in (
        gateway.http.get(path("nobody")),
        gateway.http.patch(path("nobody"), json={"price": 1.0}),
        gateway.http.delete(path("nobody")),
    ):
        assert (answer.status_code, answer.json()["field"]) == (404, "id")
    for fields, field in (
        ({"price": float("nan")}, "price"),
        ({"id": "other"}, "id"),
        ({"title": None}, None),
        ({"image": "no base64"}, "image"),
    ):
        answer = gateway.http.patch(path("ring"), content=json.dumps(fields))
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert gateway.http.get(path("x" * 300)).json()["field"] == "id"
    assert gateway.http.get(path("ring")).json()["revision"] == 1


@pytest.mark.parametrize("item", ["a/b", "a b", "ü/%2F?#", "/", "merge", "..x"])
def test_any_id_works_in_a_path(start_gateway: StartGateway, item: str) -> None:
    gateway = start_gateway()
    put(gateway, {"id": item, "title": "t"})
    assert gateway.http.get(path(item)).json()["id"] == item
    assert gateway.http.patch(path(item), json={"price": 2.0}).json()["price"] == 2
    assert gateway.http.delete(path(item)).json()["deleted"]
    assert 'route="/v1/items/{id}"' in gateway.http.get("/metrics").text


def test_pages_follow_each_other(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    put(gateway, *({"id": f"{n:03}", "title": "t"} for n in range(25)))
    seen: list[str] = []
    after = ""
    while after is not None:
        answer = gateway.http.get("/v1/items", params={"after": after, "limit": 10}).json()
        for one in answer["items"]:
            ItemOut.model_validate_json(json.dumps(one))
        seen += [one["id"] for one in answer["items"]]
        after = answer.get("after")
    assert seen == [f"{n:03}" for n in range(25)]
    for limit in ("0", "1001", "ten", "9" * 5_000, "²"):
        refused = gateway.http.get("/v1/items", params={"limit": limit})
        assert (refused.status_code, refused.json()["field"]) == (422, "limit")


def test_items_have_a_body_limit_of_their_own_and_are_counted(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(max_body_bytes=1_000, max_items_body_bytes=15_000)
    many = [{"id": f"{n}", "title": "t" * 200} for n in range(40)]
    assert put(gateway, *many).status_code == 200
    assert put(gateway, *many, *many).status_code == 413
    assert gateway.recommend(exclude=["x" * 100] * 20).status_code == 413


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = [*ItemOut.model_fields, "image", "season", "attributes"]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(field=st.sampled_from(FIELDS), value=ANY)
def test_no_value_of_any_field_is_our_error_or_hurts_another_product(
    running: Gateway, field: str, value: object
) -> None:
    odd = {"id": "odd", "title": "t", field: value}
    response = put(running, odd, RING)
    assert response.status_code == 200, response.text
    first, second = ItemsOut.model_validate(response.json()).results
    assert second.outcome == "stored"
    alone = put(running, odd)
    assert alone.status_code == 200 or alone.json()["code"] == first.code
    assert running.http.patch(path("ring"), json={field: value}).status_code < 500


@pytest.fixture
def running(start_gateway: StartGateway) -> Gateway:
    return start_gateway()
