"""The gateway before a real TorchServe: asked, recorded, told what came of it, exported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.config import Settings
from newshelf.gateway.schemas import FeedbackOut, RecommendOut
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import Workspace
from newshelf.server.client import Client
from newshelf.server.process import members
from newshelf.store.export import write_events
from newshelf.store.store import EventStore
from tests.e2e.products import base64_of, saved


@pytest.fixture(scope="module")
def shop_http(server: Served, workspace: Workspace) -> Iterator[httpx.Client]:
    """As a shop's front end calls: the gateway's address and the key of this machine."""
    assert server.state.gateway is not None
    key = (workspace.gateway / "local.key").read_text().strip()
    with httpx.Client(
        base_url=server.state.gateway.url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def store(workspace: Workspace, shop_http: httpx.Client) -> Iterator[EventStore]:
    with EventStore.open(workspace.store_url(Settings())) as opened:
        yield opened


@pytest.fixture(scope="module")
def history(catalog: Catalog) -> list[str]:
    return [str(name) for name in catalog.items["id"][:3]]


def recommend(shop_http: httpx.Client, **body: Any) -> RecommendOut:
    response = shop_http.post("/v1/recommend", json={"unit": "shopper-1", **body})
    assert response.status_code == 200, response.text
    return RecommendOut.model_validate(response.json())


def test_it_answers_what_the_model_answers(
    shop_http: httpx.Client, client: Client, history: list[str]
) -> None:
    answer = recommend(shop_http, history=history, k=5)
    direct = client.recommend(history=history, k=5)
    assert answer.source == "model"
    assert [item.model_dump(exclude_defaults=True) for item in answer.items] == direct["items"]


def test_from_a_recommendation_to_what_training_reads(
    shop_http: httpx.Client, store: EventStore, history: list[str], tmp_path: Path, shop: Path
) -> None:
    answer = recommend(shop_http, history=history, k=5)
    (exposure,) = [one for one in store.exposures() if one.request_id == answer.request_id]
    assert [item.item_id for item in exposure.items] == [item.id for item in answer.items]
    assert exposure.unit == "shopper-1"
    assert exposure.model_version
    assert exposure.index_version

    bought = answer.items[2].id
    event = {
        "event_id": f"e-{answer.request_id}",
        "event_type": "purchase",
        "item_id": bought,
        "request_id": answer.request_id,
        "value": 25.0,
    }
    told = [
        FeedbackOut.model_validate(shop_http.post("/v1/feedback", json=event).json())
        for _ in range(2)
    ]
    assert [one.results[0].outcome for one in told] == ["stored", "duplicate"]

    # The catalogue's own reader takes what is exported, beside the shop's products.
    grown = tmp_path / "grown"
    grown.mkdir()
    for source in shop.iterdir():
        if not source.name.startswith("events"):
            (grown / source.name).symlink_to(source)
    assert write_events(store.feedback(), grown / "events.parquet") >= 1
    events = read_catalog(grown).events
    assert events is not None
    mine = events[(events["user_id"] == "shopper-1") & (events["item_id"] == bought)]
    assert list(mine["event_type"]) == ["purchase"]


def test_similar_and_encode(shop_http: httpx.Client, history: list[str]) -> None:
    body = {"unit": "shopper-2", "item": history[0], "k": 4}
    similar = RecommendOut.model_validate(shop_http.post("/v1/similar", json=body).json())
    assert len(similar.items) == 4
    assert history[0] not in [item.id for item in similar.items]
    encoded = shop_http.post("/v1/encode", json={"title": "silver ring with a small jade"})
    assert len(encoded.json()["embedding"]) == 512
    # The same by the Open Inference Protocol.
    text = {"name": "title", "datatype": "BYTES", "shape": [1]}
    asked = {"inputs": [{**text, "data": ["silver ring with a small jade"]}]}
    inferred = shop_http.post("/v2/models/encoder/infer", json=asked).json()["outputs"][0]
    assert inferred["shape"] == [1, 512]
    np.testing.assert_allclose(inferred["data"][0], encoded.json()["embedding"], atol=1e-5)


def test_the_models_refusals_come_through(shop_http: httpx.Client) -> None:
    refused = shop_http.post("/v1/recommend", json={"unit": "u", "k": 101})
    assert (refused.status_code, refused.json()["field"]) == (422, "k")
    many = shop_http.post("/v1/recommend", json={"unit": "u", "history": ["x"] * 201})
    assert (many.status_code, many.json()["field"]) == (413, "history")
    unknown = shop_http.post("/v1/feedback", json={
        "event_id": "e", "event_type": "click", "item_id": "i", "request_id": "nobody",
    })  # fmt: skip
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_request")


def test_it_is_ready_and_counts(shop_http: httpx.Client) -> None:
    assert shop_http.get("/readyz").json() == {"status": "ready", "missing": {}}
    assert 'route="/v1/recommend",status="200"' in shop_http.get("/metrics").text


def test_state_knows_exactly_its_processes(server: Served) -> None:
    state = server.state.current()
    wanted = {"torchserve", "gateway-1", "controller", "shelf", "supervisor", "standby"}
    assert state.processes.keys() == wanted
    assert all(members(one) for one in state.processes.values())


def test_forms_and_pictures_are_what_the_model_is_sent_as_json(shop_http: httpx.Client) -> None:
    picture = saved(Image.new("RGB", (90, 60), "teal"), "PNG")
    answers = [
        shop_http.post("/v1/encode", **request).json()["embedding"]
        for request in (
            {"files": {"image": picture}, "data": {"title": "jade", "price": "7.5"}},
            {"json": {"title": "jade", "price": 7.5, "image": base64_of(picture)}},
        )
    ]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)
    for request in (
        {"files": [("image", b"oops"), ("image", picture)]},
        {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ):
        for _ in range(20):
            assert 400 <= shop_http.post("/v1/encode", **request).status_code < 500
    assert shop_http.get("/readyz?strict").json() == {"status": "ready", "missing": {}}


def test_a_units_events_are_its_history_until_it_is_erased(
    shop_http: httpx.Client, store: EventStore, history: list[str], client: Client
) -> None:
    events = [
        {
            "event_id": f"history-{item}",
            "event_type": "favourite",
            "item_id": item,
            "unit": "cookie",
        }
        for item in history
    ]
    for event in events:
        assert shop_http.post("/v1/feedback", json=event).json()["accepted"] == 1
    merged = shop_http.post("/v1/units/merge", json={"visitor": "cookie", "unit": "account"})
    assert merged.status_code == 200
    known = recommend(shop_http, unit="account", k=5)
    direct = client.recommend(history=history, k=5)
    assert [item.id for item in known.items] == [item["id"] for item in direct["items"]]
    assert shop_http.get("/v1/units/account").json()["visitors"] == ["cookie"]
    erased = shop_http.delete("/v1/units/account").json()
    assert erased == {"visitors": 1, "exposures": 1, "feedback": len(history)}
    late = shop_http.post("/v1/feedback", json={**events[0], "event_id": "late"})
    assert (late.status_code, late.json()["field"]) == (410, "unit")
    assert "account" not in {one.unit for one in store.exposures()}
    assert recommend(shop_http, unit="account", k=5).source == "model"
