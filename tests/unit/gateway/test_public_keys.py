"""Feedback from browsers: public keys, their bounds, and pages of other origins."""

import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from newshelf.config import GatewaySettings
from newshelf.gateway.keys import PUBLIC_SCOPES
from tests.gateways import Gateway, StartGateway

SHOP = "https://shop.example"
PREFLIGHT = {
    "Origin": SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


class Browser:
    """Pages with the public key, behind a proxy that names their addresses."""

    def __init__(self, gateway: Gateway, rate_per_s: float = 1000.0) -> None:
        self.gateway = gateway
        self.key = gateway.keys.add(
            "web",
            now=datetime.now(UTC),
            expires=None,
            rate_per_s=rate_per_s,
            scopes=PUBLIC_SCOPES,
            public=True,
        )
        while self.send({}, "192.0.2.250").status_code == 401:
            time.sleep(0.05)

    def send(self, body: object, address: str = "192.0.2.1") -> httpx.Response:
        return httpx.post(
            f"{self.gateway.url}/v1/feedback",
            json=body,
            headers={"Authorization": f"Bearer {self.key}", "X-Forwarded-For": address},
            trust_env=False,
        )


def clicked(gateway: Gateway, **fields: Any) -> dict[str, Any]:
    answer = gateway.recommend(history=["item-001"]).json()
    request_id, item = answer["request_id"], answer["items"][0]["id"]
    event = {"event_id": f"{request_id}-click-{item}", "event_type": "click", "item_id": item}
    return {**event, "request_id": request_id, **fields}


def test_a_public_key_reports_a_click_and_can_do_nothing_else(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    browser = Browser(gateway)
    assert browser.key.startswith("nsp_")
    click = clicked(gateway)
    assert [browser.send(click).json()["results"][0]["outcome"] for _ in range(2)] == [
        "stored",
        "duplicate",
    ]
    (kept,) = gateway.store.feedback()
    assert (kept.item_id, kept.key_name) == (click["item_id"], "web")
    headers = {"Authorization": f"Bearer {browser.key}"}
    for path in ("/v1/recommend", "/v1/items", "/v1/units/u1", "/metrics"):
        assert httpx.get(gateway.url + path, headers=headers, trust_env=False).status_code == 403


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"event_type": "purchase"}, "event_type"),
        ({"request_id": None, "unit": "u1"}, "request_id"),
        ({"event_id": "order-17"}, "event_id"),
    ],
)
def test_what_anybody_could_invent_is_refused(
    start_gateway: StartGateway, fields: dict[str, Any], field: str
) -> None:
    gateway = start_gateway()
    browser, good = Browser(gateway), clicked(gateway)
    refused = browser.send(clicked(gateway, **fields))
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    both = browser.send({"events": [good, clicked(gateway, **fields)]})
    assert (both.status_code, both.json()["accepted"]) == (200, 1)
    assert both.json()["results"][1]["field"] == f"events[1].{field}"
    # The shop's own server may.
    assert gateway.http.post("/v1/feedback", json=clicked(gateway, **fields)).status_code == 200


def test_a_product_that_the_answer_did_not_show_is_refused(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    refused = Browser(gateway).send(clicked(gateway, item_id="item-001"))
    assert (refused.status_code, refused.json()["field"]) == (404, "item_id")


def test_an_address_that_floods_takes_nothing_from_others(start_gateway: StartGateway) -> None:
    gateway = start_gateway(trusted_proxies=["127.0.0.0/8"], public_rate_per_s=0.01)
    browser = Browser(gateway)
    flood = clicked(gateway)
    assert browser.send(flood).status_code == 200
    limited = browser.send(flood)
    assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
    assert int(limited.headers["retry-after"]) > 50
    assert browser.send(clicked(gateway), "192.0.2.2").status_code == 200
    # A host has the second half of an IPv6 address to itself; what is no address is one, too.
    assert browser.send(clicked(gateway), "2001:db8::1").status_code == 200
    assert browser.send(clicked(gateway), "2001:db8::2").status_code == 429
    assert browser.send(clicked(gateway), "unknown").status_code == 200
    assert browser.send(clicked(gateway), "unknown").status_code == 429


def test_a_forged_address_is_not_believed_without_a_trusted_proxy(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(public_rate_per_s=0.01)
    headers = {"Authorization": f"Bearer {Browser(gateway).key}", "X-Forwarded-For": "192.0.2.9"}
    answer = httpx.post(f"{gateway.url}/v1/feedback", headers=headers, json={}, trust_env=False)
    assert answer.status_code == 429


def test_the_rate_of_the_key_bounds_all_addresses_together(start_gateway: StartGateway) -> None:
    gateway = start_gateway(trusted_proxies=["127.0.0.1"])
    browser = Browser(gateway, rate_per_s=3)
    statuses = {browser.send({}, f"192.0.2.{host}").status_code for host in range(10)}
    assert statuses == {422, 429}


def test_pages_of_allowed_origins_alone_may_read_answers(start_gateway: StartGateway) -> None:
    gateway = start_gateway(allowed_origins=[SHOP])
    allowed = gateway.http.options("/v1/feedback", headers=PREFLIGHT)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SHOP
    assert allowed.headers["access-control-allow-methods"] == "POST"
    assert "Authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers
    other = {**PREFLIGHT, "Origin": "https://other.example"}
    refused = gateway.http.options("/v1/feedback", headers=other)
    assert refused.status_code == 400
    for answer in (refused, gateway.http.post("/v1/feedback", json={}, headers=other)):
        assert "access-control-allow-origin" not in answer.headers
    # A refusal can be read as well as an acknowledgement.
    for event in ({}, clicked(gateway)):
        answer = gateway.http.post("/v1/feedback", json=event, headers={"Origin": SHOP})
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "Origin" in answer.headers["vary"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_no_origin_is_allowed_unless_the_settings_name_it(start_gateway: StartGateway) -> None:
    refused = start_gateway().http.options("/v1/feedback", headers=PREFLIGHT)
    assert refused.status_code == 405
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("origin", ["*", "shop.example", "https://shop.example/", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="allowed_origins"):
        GatewaySettings(allowed_origins=(origin,))


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.1/8"])
def test_what_is_no_network_is_not_trusted(proxy: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        GatewaySettings(trusted_proxies=(proxy,))
