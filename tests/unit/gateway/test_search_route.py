"""``POST /v1/search``: what reaches the model, what it answers, and what is recorded."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from newshelf.server.program import GatewayPlan
from newshelf.shelf.words import WordIndex
from newshelf.store.items import ItemColumns, ItemWrite
from newshelf.store.records import TrafficSplit
from tests.fake_predictors import FAKE_IDS
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status

TITLES = {FAKE_IDS[3]: "Blue ring", FAKE_IDS[5]: "Ring of gold", FAKE_IDS[8]: "Blue lamp"}


@pytest.fixture
def gateway_plan(gateway_plan: GatewayPlan, tmp_path: Path) -> GatewayPlan:
    return gateway_plan.model_copy(update={"words": tmp_path / "words"})


@pytest.fixture
def gateway(start_gateway: StartGateway, gateway_plan: GatewayPlan) -> Gateway:
    running = start_gateway()
    columns = [ItemColumns(id=item, title=title) for item, title in TITLES.items()]
    running.store.items.put([ItemWrite(one) for one in columns])
    assert gateway_plan.words is not None
    WordIndex(gateway_plan.words).follow(running.store.items)
    return running


def search(gateway: Gateway, **body: Any) -> httpx.Response:
    return gateway.http.post("/v1/search", json=body)


def asked_of(torchserve: FakeTorchServe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(torchserve.asked[-1].body)
    return found


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (0, 0, 255)).save(stream, "PNG")
    return stream.getvalue()


def test_the_model_gets_sentence_and_hits_and_no_unit(
    gateway: Gateway, torchserve: FakeTorchServe
) -> None:
    body = {"text": "blue rings under 50", "unit": "ann", "k": 4, "exclude": ["x"]}
    answer = search(gateway, **body, filters={"brand": "Acme"})
    assert answer.status_code == 200, answer.text
    asked = asked_of(torchserve)
    assert asked.pop("search") == {
        "text": "blue rings under 50",
        "hits": [FAKE_IDS[3], FAKE_IDS[8], FAKE_IDS[5]],
    }
    assert asked == {"k": 4, "exclude": ["x"], "filters": {"brand": ["Acme"]}}
    assert len(answer.json()["items"]) == 4
    assert answer.json()["understood"] == {"filters": {"color": ["blue"]}}


def test_the_answer_is_recorded_as_a_search(gateway: Gateway) -> None:
    answer = search(gateway, text="ring", unit="ann", k=2).json()
    [exposure] = gateway.exposures()
    assert (exposure.kind, exposure.unit) == ("search", "ann")
    assert exposure.request_id == answer["request_id"]
    assert [item.item_id for item in exposure.items] == [item["id"] for item in answer["items"]]


def test_nobody_known_is_outside_of_rollouts(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    split = TrafficSplit(
        rollout="r", salt="s", control="old", challenger="new", share=0.5, holdout=0
    )
    gateway = start_gateway((split,))
    answer = search(gateway, text="ring").json()
    [exposure] = gateway.exposures()
    assert (exposure.unit, exposure.rollout) == (answer["request_id"], None)
    assert torchserve.asked[-1].version == ""
    assert search(gateway, text="ring", unit="ann").status_code == 200
    assert torchserve.asked[-1].version in {"old", "new"}


Send = Callable[[Gateway], httpx.Response]


@pytest.mark.parametrize(
    "send",
    [
        lambda gateway: search(gateway, image=base64.b64encode(png()).decode(), k=2),
        lambda gateway: gateway.http.post(
            "/v1/search", files={"image": ("a.png", png())}, data={"k": "2"}
        ),
        lambda gateway: gateway.http.post(
            "/v1/search", content=png(), headers={"Content-Type": "image/png"}
        ),
    ],
    ids=["json", "form", "bare"],
)
def test_a_picture_comes_in_three_forms(
    gateway: Gateway, torchserve: FakeTorchServe, send: Send
) -> None:
    answer = send(gateway)
    assert answer.status_code == 200, answer.text
    sent = asked_of(torchserve)["search"]
    assert base64.b64decode(sent["image"]) == png()


def test_a_form_has_filters_as_json(gateway: Gateway, torchserve: FakeTorchServe) -> None:
    parts = {"text": "ring", "filters": '{"price": {"max": 9}}', "unit": "ann"}
    files = {name: (None, value) for name, value in parts.items()}
    answer = gateway.http.post("/v1/search", files=files)
    assert answer.status_code == 200, answer.text
    assert asked_of(torchserve)["filters"] == {"price": {"max": 9.0}}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, 422, "text"),
        ({"text": " "}, 422, "text"),
        ({"text": None, "k": 3}, 422, "text"),
        ({"text": "x" * 10_001}, 413, "text"),
        ({"text": "ring", "k": 0}, 422, "k"),
        ({"text": "ring", "k": 100_000}, 422, "k"),
        ({"text": "ring", "history": ["a"]}, 422, "history"),
        ({"text": "ring", "filters": {"colour": "red"}}, 422, "filters.colour"),
        ({"text": "ring", "cursor": "x"}, 422, "cursor"),
        ({"image": "https://example.com/a.png"}, 422, "image"),
        ({"image": "!"}, 422, "image"),
        ({"text": "ring", "unit": ""}, 422, "unit"),
    ],
)
def test_a_bad_search_is_refused(
    gateway: Gateway, body: dict[str, Any], code: int, field: str
) -> None:
    answer = search(gateway, **body)
    assert (answer.status_code, answer.json()["field"]) == (code, field), answer.text
    assert gateway.exposures() == []


def test_a_bad_part_of_a_form_is_refused(gateway: Gateway) -> None:
    answer = gateway.http.post("/v1/search", files={"text": (None, "x"), "k": (None, "two")})
    assert (answer.status_code, answer.json()["field"]) == (422, "k")


def test_a_search_does_not_hide_in_a_recommendation(gateway: Gateway) -> None:
    answer = gateway.recommend(search={"text": "ring"})
    assert (answer.status_code, answer.json()["field"]) == (422, "search")


def test_pages_of_a_search_do_not_repeat(gateway: Gateway, torchserve: FakeTorchServe) -> None:
    first = search(gateway, text="ring", unit="ann", k=3, cursor="").json()
    again = search(gateway, text="ring", unit="ann", k=3, cursor=first["cursor"]).json()
    shown = {item["id"] for item in first["items"]}
    assert not shown & {item["id"] for item in again["items"]}
    assert set(asked_of(torchserve)["exclude"]) == shown
    other = search(gateway, text="lamp", unit="ann", k=3, cursor=first["cursor"])
    assert (other.status_code, other.json()["field"]) == (422, "cursor")


def test_without_a_model_words_answer(gateway: Gateway, torchserve: FakeTorchServe) -> None:
    torchserve.always = status(503)
    answer = search(gateway, text="blue ring", k=2).json()
    assert answer["source"] == "fallback"
    assert [item["id"] for item in answer["items"]] == [FAKE_IDS[3], FAKE_IDS[8]]
    assert search(gateway, text="nothing like it").json()["items"] == []
