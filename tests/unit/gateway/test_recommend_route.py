"""What a shop's front end gets when all is well."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import orjson
import pytest

from newshelf.gateway.schemas import RecommendOut
from newshelf.serving.protocol import TIMEOUT_HEADER, RawRequest, check_deadline
from newshelf.serving.schemas import EncoderAnswer
from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe


def test_the_model_answers_and_the_answer_is_in_the_store(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    before = datetime.now(UTC)
    response = gateway.recommend("shopper-7", history=["item-003", "unknown"], explain=True)
    assert response.status_code == 200
    answer = RecommendOut.model_validate(response.json())
    assert answer.source == "model"
    assert len(answer.items) == 3
    assert answer.ignored == ["unknown"]
    assert answer.items[0].reason == "by a hash"
    assert "version" not in response.text
    assert "variant" not in response.text

    (exposure,) = gateway.exposures()
    assert exposure.request_id == answer.request_id == response.headers["x-request-id"]
    assert exposure.unit == "shopper-7"
    assert before <= exposure.at <= datetime.now(UTC)
    assert (exposure.rollout, exposure.variant, exposure.fallback) == (None, "default", False)
    assert (exposure.model_version, exposure.index_version) == (
        "default00000",
        "index-default00000",
    )
    shown = [(item.item_id, item.position, item.score, item.source) for item in exposure.items]
    assert shown == [
        (item.id, place, item.score, item.source) for place, item in enumerate(answer.items, 1)
    ]
    assert {item.propensity for item in exposure.items} == {1.0}


def test_the_model_is_sent_all_but_who_asks(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    body = {
        "history": ["item-001", {"title": "jade ring"}],
        "candidates": ["item-002", "item-003"],
        "filters": {"price": {"max": 9}},
        "exclude": ["item-004"],
        "diversity": 0.25,
    }
    assert gateway.recommend("shopper-7", user_id="ada", **body).status_code == 200
    (asked,) = torchserve.asked
    assert asked.path == "/predictions/recommender"
    assert orjson.loads(asked.body) == {"k": 3, **body}
    assert "shopper-7" not in str(asked)


def test_similar_asks_with_a_history_of_one_product(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    body = {"unit": "u", "item": "item-009", "k": 4, "exclude": ["item-001"]}
    response = gateway.http.post("/v1/similar", json=body)
    assert len(RecommendOut.model_validate(response.json()).items) == 4
    (asked,) = torchserve.asked
    assert orjson.loads(asked.body) == {
        "kind": "similar",
        "history": ["item-009"],
        "k": 4,
        "exclude": ["item-001"],
    }
    assert gateway.exposures()[0].request_id == response.json()["request_id"]


def test_encode_is_answered_by_the_encoder(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    answer = gateway.http.post("/v1/encode", json={"title": "jade ring"})
    assert len(EncoderAnswer.model_validate(answer.json()).embedding) == 512
    assert [asked.path for asked in torchserve.asked] == ["/predictions/encoder"]
    assert gateway.exposures() == []


def test_the_models_own_4xx_reaches_the_client_and_is_no_exposure(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    response = gateway.recommend(k=1_000)
    assert response.status_code == 422
    assert response.json()["field"] == "k"
    missing = gateway.recommend(candidates=["nobody", "knows"])
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_item")
    encode = gateway.http.post("/v1/encode", json={"titel": "x"})
    assert (encode.status_code, encode.json()["field"]) == (422, "titel")
    assert gateway.exposures() == []


def test_every_request_has_an_id_of_its_own(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: gateway.recommend(f"u{n % 5}"), range(200)))
    ids = [answer.json()["request_id"] for answer in answers]
    assert len(set(ids)) == 200
    assert sorted(ids) == sorted(exposure.request_id for exposure in gateway.exposures())


@pytest.mark.parametrize("asked_ms", [2_000, 5_000, 3_600_000])
def test_the_time_that_is_left_is_passed_on_and_no_more_than_allowed(
    start_gateway: StartGateway, torchserve: FakeTorchServe, asked_ms: int
) -> None:
    gateway = start_gateway(max_timeout_ms=5000)
    headers = {TIMEOUT_HEADER: str(asked_ms)}
    body = {"unit": "u", "history": ["item-001"]}
    assert gateway.http.post("/v1/recommend", json=body, headers=headers).status_code == 200
    # A little less, so that the fallback still has time.
    assert 0 < int(torchserve.asked[0].headers[TIMEOUT_HEADER]) < min(asked_ms, 5_000)


@pytest.mark.parametrize("shift_s", [-86_400, 86_400])
def test_clocks_that_differ_by_a_day_change_nothing(
    start_gateway: StartGateway,
    torchserve: FakeTorchServe,
    monkeypatch: pytest.MonkeyPatch,
    shift_s: int,
) -> None:
    """The gateway's; the worker's is the right one."""
    gateway = start_gateway()
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + shift_s)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + shift_s * 10**9)
    headers = {TIMEOUT_HEADER: "2000"}
    body = {"unit": "u", "history": ["item-001"]}
    answer = gateway.http.post("/v1/recommend", json=body, headers=headers).json()
    monkeypatch.undo()
    assert answer["source"] == "model"
    [asked] = torchserve.asked
    # What the gateway sent, a worker takes in time.
    sent = RawRequest.from_http({}, asked.headers, "r")
    assert 0 < check_deadline(sent, 10_000) - time.monotonic() < 2


def test_connections_are_kept(start_gateway: StartGateway, torchserve: FakeTorchServe) -> None:
    gateway = start_gateway()
    for _ in range(20):
        gateway.recommend()
    assert torchserve.connections == 1
