"""Keys, rates, sizes, times and headers: the same for every route."""

import io
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from newshelf.serving.protocol import OLD_DEADLINE_HEADER, TIMEOUT_HEADER
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe

CLOSED = [
    "/v1/recommend",
    "/v1/similar",
    "/v1/encode",
    "/v1/feedback",
    "/v1/rollouts",
    "/metrics",
    "/v2/models/encoder/infer",
    "/v2/models/recommender/infer",
]


def with_key(gateway: Gateway, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": key.encode("latin-1")}
    return httpx.post(
        f"{gateway.url}/v1/recommend", json={"unit": "u"}, headers=headers, trust_env=False
    )


def test_without_a_valid_key_nothing_is_answered(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    for key in (None, "", "Bearer", "Bearer nsk_guess", "Basic dTpw", "Bearer \xe9"):
        response = with_key(gateway, key)
        assert response.status_code == 401, key
        assert response.json()["code"] == "unauthorized"
        assert response.headers["www-authenticate"] == "Bearer"
    for path in CLOSED:
        assert httpx.get(gateway.url + path, trust_env=False).status_code == 401
    assert torchserve.asked == []


def test_liveness_readiness_and_description_need_no_key(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    answers = {
        path: httpx.get(gateway.url + path, trust_env=False)
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/v2", "/v2/health/ready")
    }
    assert {answer.status_code for answer in answers.values()} == {200}
    assert answers["/healthz"].json() == {"status": "alive"}
    assert answers["/readyz"].json() == {"status": "ready", "missing": {}}


def test_an_expired_key_is_told_since_when(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    now = datetime.now(UTC)
    soon = now + timedelta(seconds=0.05)
    secret = gateway.keys.add("short", now=now, expires=soon, rate_per_s=10)
    time.sleep(0.1)
    while "not known" in (response := with_key(gateway, f"Bearer {secret}")).text:
        time.sleep(0.05)
    assert response.status_code == 401
    assert f"'short' expired at {soon:%Y-%m-%d}" in response.json()["message"]


def test_keys_are_added_and_revoked_while_it_runs(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    secret = gateway.keys.add("new", now=datetime.now(UTC), expires=None, rate_per_s=1000)
    while with_key(gateway, f"bearer {secret}").status_code == 401:
        time.sleep(0.05)
    gateway.keys.revoke("new")
    while (response := with_key(gateway, f"Bearer {secret}")).status_code == 200:
        time.sleep(0.05)
    assert response.status_code == 401
    assert gateway.recommend().status_code == 200


def test_a_damaged_key_file_ends_nobodys_access(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    gateway.keys.path.write_text("{")
    time.sleep(1.2)
    assert gateway.recommend().status_code == 200


def test_each_key_has_a_rate_of_its_own(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    secret = gateway.keys.add("slow", now=datetime.now(UTC), expires=None, rate_per_s=0.001)
    while (first := with_key(gateway, f"Bearer {secret}")).status_code == 401:
        time.sleep(0.05)
    assert first.status_code == 200
    limited = with_key(gateway, f"Bearer {secret}")
    assert limited.status_code == 429
    assert limited.json()["code"] == "rate_limited"
    assert "'slow' may send 0.001 requests" in limited.json()["message"]
    assert 900 < int(limited.headers["retry-after"]) <= 1000
    assert gateway.recommend().status_code == 200


def test_a_body_above_the_limit_is_refused_whether_it_says_its_size_or_not(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway(max_body_bytes=1000)

    def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 500

    for content in (b"x" * 1001, chunks()):
        response = gateway.http.post("/v1/encode", content=content)
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert gateway.http.post("/v1/encode", content=b"x" * 1000).status_code == 400
    assert torchserve.asked == []


def test_a_body_that_never_ends_is_given_up(start_gateway: StartGateway) -> None:
    gateway = start_gateway(timeout_ms=100)
    key = gateway.http.headers["authorization"]
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        opened.sendall(
            f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n"
            'Content-Length: 100\r\n\r\n{"unit"'.encode()
        )
        answer = opened.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive in time" in answer


@pytest.mark.parametrize("text", ["soon", "1e3", "-5", "", "1795963008336"])
def test_a_deadline_that_is_no_time_is_refused(start_gateway: StartGateway, text: str) -> None:
    gateway = start_gateway()
    response = gateway.http.post(
        "/v1/recommend", json={"unit": "u"}, headers={TIMEOUT_HEADER: text}
    )
    assert (response.status_code, response.json()["field"]) == (422, TIMEOUT_HEADER)


def test_the_header_of_before_is_refused_with_the_new_ones_name(
    start_gateway: StartGateway,
) -> None:
    headers = {OLD_DEADLINE_HEADER: "1795963008336"}
    response = start_gateway().http.post("/v1/recommend", json={"unit": "u"}, headers=headers)
    assert (response.status_code, response.json()["field"]) == (422, OLD_DEADLINE_HEADER)
    assert TIMEOUT_HEADER in response.json()["message"]


def test_a_deadline_that_has_passed_costs_nothing(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    response = gateway.http.post("/v1/recommend", json={"unit": "u"}, headers={TIMEOUT_HEADER: "0"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert torchserve.asked == []
    assert gateway.exposures() == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/recommend", 405, "method_not_allowed"),
        ("DELETE", "/v1/rollouts", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/predictions/recommender", 404, "not_found"),
        ("GET", "/redoc", 404, "not_found"),
    ],
)
def test_other_paths_and_methods(
    start_gateway: StartGateway, method: str, path: str, status: int, code: str
) -> None:
    response = start_gateway().http.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert set(response.json()) == {"code", "message", "field"}


def test_every_answer_has_the_headers_that_browsers_heed(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    for response in (
        gateway.recommend(),
        gateway.http.get("/nothing"),
        with_key(gateway, None),
        gateway.http.get("/healthz"),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-frame-options"] == "DENY"
        assert len(response.headers["x-request-id"]) == 32


def test_the_log_tells_of_requests_and_not_of_people(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    gateway = start_gateway(log_requests=True)
    answer = gateway.recommend("unit-of-ada", history=["item-017"])
    gateway.http.post("/v1/recommend", content=b'{"unit": "unit-of-ada", "k": "secret-k"}')
    gateway.http.get("/no/such/path-of-ada")
    while out.getvalue().count("\n") < 3:
        threading.Event().wait(0.02)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    told = [(line["route"], line["status"], line["key"], line["source"]) for line in lines]
    assert told == [
        ("/v1/recommend", 200, "tests", "model"),
        ("/v1/recommend", 422, "tests", None),
        ("other", 404, "tests", None),
    ]
    assert lines[0]["request_id"] == answer.json()["request_id"]
    assert lines[1]["reason"] == "invalid_field"
    for private in ("ada", "item-017", "secret-k", "nsk_"):
        assert private not in out.getvalue()


def test_a_defect_is_a_500_that_tells_nothing_but_where_to_look(
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("newshelf.gateway.app.parse_recommend_body", defect)
    gateway = start_gateway()
    response = gateway.recommend()
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.headers["x-request-id"] in response.json()["message"]
    assert "secret detail" not in response.text
    assert "secret detail" in caplog.text
    assert gateway.http.get("/healthz").status_code == 200
