"""Whatever happens to the model, the page gets something to show, and the record says so."""

import threading
from typing import Any

import pytest

from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import (
    ALIVE,
    FakeTorchServe,
    broken,
    closed,
    late,
    raw,
    status,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: "
FAULTS = {
    "queue full": status(503),
    "too many": status(429, b'{"code": "rate_limited", "message": "no", "field": null}'),
    "defect": status(500, b'{"code": "internal", "message": "no", "field": null}'),
    "worker late": status(504, b'{"code": "deadline_exceeded", "message": "no", "field": null}'),
    "no such version": status(404, b'{"code": 404, "type": "ModelNotFoundException"}'),
    "hangs up": closed,
    "half an answer": broken,
    "no http": raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "no json": raw(OK + b"4\r\n\r\nnope"),
    "not an answer": raw(OK + b"2\r\n\r\n{}"),
    "an array": raw(OK + b"2\r\n\r\n[]"),
    "items of nothing": status(200, b'{"items": [{}], "model_version": "m", "index_version": "i"}'),
    "no score": status(
        200,
        b'{"items": [{"id": "a", "source": "model"}], "model_version": "m", "index_version": "i"}',
    ),
    "a score of text": status(
        200,
        b'{"items": [{"id": "a", "score": "high", "source": "model"}], '
        b'"model_version": "m", "index_version": "i"}',
    ),
    "a product twice": status(
        200,
        b'{"items": [{"id": "a", "score": 1, "source": "model"}, '
        b'{"id": "a", "score": 1, "source": "model"}], '
        b'"model_version": "m", "index_version": "i"}',
    ),
    "too slow": late(30),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fallback_answers_in_the_models_place(
    start_gateway: StartGateway, torchserve: FakeTorchServe, fault: str
) -> None:
    torchserve.always = FAULTS[fault]
    gateway = start_gateway(timeout_ms=300)
    response = gateway.recommend("u", history=["item-001"])
    assert response.status_code == 200
    answer = response.json()
    assert answer["source"] == "fallback"
    # The most popular of the category of item-001.
    assert [item["id"] for item in answer["items"]] == ["item-196", "item-193", "item-190"]
    assert {item["source"] for item in answer["items"]} == {"popular_in_category"}
    (exposure,) = gateway.exposures()
    assert exposure.fallback
    assert exposure.request_id == answer["request_id"]
    assert [item.item_id for item in exposure.items] == [item["id"] for item in answer["items"]]


def test_a_model_server_that_is_not_there(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    torchserve.stop()
    assert gateway.recommend().json()["source"] == "fallback"
    # A balancer that ended its traffic would end the fallback's answers, too.
    ready = gateway.http.get("/readyz")
    assert (ready.status_code, set(ready.json()["missing"])) == (200, {"encoder", "recommender"})
    strict = gateway.http.get("/readyz?strict")
    assert (strict.status_code, strict.json()["code"]) == (503, "unavailable")
    assert gateway.http.get("/healthz").status_code == 200
    encode = gateway.http.post("/v1/encode", json={"title": "x"})
    assert (encode.status_code, encode.json()["code"]) == (503, "unavailable")


def test_it_goes_back_to_the_model_when_that_is_back(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    torchserve.stop()
    assert gateway.recommend().json()["source"] == "fallback"
    with FakeTorchServe(port=torchserve.port):
        assert gateway.recommend().json()["source"] == "model"


def test_encode_has_no_fallback_and_says_so(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway(timeout_ms=200)
    torchserve.behaviours = [status(503), late(30)]
    answers = [gateway.http.post("/v1/encode", json={"title": "x"}) for _ in range(2)]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [
        (503, "unavailable"),
        (504, "deadline_exceeded"),
    ]


def test_a_version_that_keeps_failing_is_left_alone_then_tried_and_taken_back(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.always = status(500, b"")
    gateway = start_gateway(breaker_requests=4, breaker_open_s=0.2)
    for _ in range(10):
        assert gateway.recommend().json()["source"] == "fallback"
    asked = len(torchserve.asked)
    assert asked < 10
    page = gateway.http.get("/metrics").text
    assert 'newshelf_gateway_breaker{model="recommender",version="default"} 2.0' in page
    torchserve.always = ALIVE
    while gateway.recommend().json()["source"] == "fallback":
        threading.Event().wait(0.02)
    assert gateway.recommend().json()["source"] == "model"
    assert 'version="default"} 0.0' in gateway.http.get("/metrics").text


def test_a_kept_connection_that_was_closed_is_not_the_clients_affair(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    assert gateway.recommend().json()["source"] == "model"
    torchserve.stop()
    with FakeTorchServe(port=torchserve.port) as restarted:
        assert gateway.recommend().json()["source"] == "model"
        assert len(restarted.asked) == 1


def test_no_more_requests_wait_than_there_are_connections(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway(connections=2, breaker_requests=4, timeout_ms=20_000)
    gate = threading.Event()

    async def held(asked: Any, writer: Any) -> None:
        import asyncio  # noqa: PLC0415

        if "/recommender" in asked.path:
            await asyncio.to_thread(gate.wait, 20)
        await ALIVE(asked, writer)

    torchserve.always = held
    sources: list[str] = []
    threads = [
        threading.Thread(target=lambda: sources.append(gateway.recommend().json()["source"]))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    # Two are asked, two wait, six get the fallback while the model still thinks.
    while len(sources) < 6:
        gate.wait(0.01)
    assert set(sources) == {"fallback"}
    assert {asked.connection for asked in torchserve.asked} == {1, 2}
    # Overload is no failure: the breaker stays closed, and the model counts as one that answers.
    page = gateway.http.get("/metrics").text
    assert 'newshelf_gateway_breaker{model="recommender",version="default"} 0.0' in page
    assert 'newshelf_gateway_model_up{model="recommender"} 1.0' in page
    assert 'newshelf_gateway_fallbacks_total{reason="overloaded"} 6.0' in page
    gate.set()
    for thread in threads:
        thread.join()
    assert sources.count("model") == 4
