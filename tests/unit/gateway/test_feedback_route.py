"""What shoppers did comes in, once, and with the answer that showed the product."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from newshelf.gateway.answers import FeedbackOut
from tests.unit.gateway.conftest import Gateway, StartGateway


def shown(gateway: Gateway, unit: str = "u1") -> tuple[str, list[str]]:
    answer = gateway.recommend(unit, history=["item-001"]).json()
    return answer["request_id"], [item["id"] for item in answer["items"]]


def event(**fields: Any) -> dict[str, Any]:
    return {"event_id": "e1", "event_type": "click", **fields}


def test_a_click_is_kept_with_its_answer(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    request_id, items = shown(gateway)
    response = gateway.http.post(
        "/v1/feedback", json=event(item_id=items[1], request_id=request_id)
    )
    assert response.status_code == 200
    assert FeedbackOut.model_validate(response.json()).accepted == 1
    assert response.json()["results"] == [{"event_id": "e1", "outcome": "stored"}]
    (kept,) = gateway.store.feedback()
    assert (kept.request_id, kept.item_id) == (request_id, items[1])


def test_the_same_event_twice_is_kept_once(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    request_id, items = shown(gateway)
    same = event(item_id=items[0], request_id=request_id, event_type="purchase", value=12.5)
    outcomes = [
        gateway.http.post("/v1/feedback", json=same).json()["results"][0]["outcome"]
        for _ in range(2)
    ]
    assert outcomes == ["stored", "duplicate"]
    twice = gateway.http.post("/v1/feedback", json={"events": [same, same]})
    assert twice.json()["accepted"] == 2
    assert len(list(gateway.store.feedback())) == 1


def test_without_a_request_the_units_last_answer_is_found(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    shown(gateway, "other")
    request_id, items = shown(gateway, "u1")
    response = gateway.http.post("/v1/feedback", json=event(item_id=items[0], unit="u1"))
    assert response.json()["results"][0]["outcome"] == "stored"
    (kept,) = gateway.store.feedback()
    assert kept.request_id == request_id


def test_feedback_on_an_unknown_request_is_a_404_and_changes_nothing(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    request_id, items = shown(gateway)
    unknown = gateway.http.post(
        "/v1/feedback", json=event(item_id=items[0], request_id="nobody-got-this")
    )
    assert unknown.status_code == 404
    assert unknown.json() == {
        "code": "unknown_request",
        "message": "no answer has this request_id",
        "field": "request_id",
    }
    other = gateway.http.post(
        "/v1/feedback", json={"events": [event(item_id="never-shown", request_id=request_id)] * 2}
    )
    assert other.status_code == 404
    assert other.json()["field"] == "events[0].item_id"
    assert list(gateway.store.feedback()) == []


def test_one_bad_event_does_not_fail_the_others(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    request_id, items = shown(gateway)
    events = [
        event(event_id="lost", item_id=items[0], request_id="unknown"),
        event(event_id="kept", item_id=items[0], request_id=request_id),
    ]
    response = gateway.http.post("/v1/feedback", json={"events": events})
    assert response.status_code == 200
    assert response.json()["accepted"] == 1
    lost, kept = response.json()["results"]
    assert (lost["outcome"], lost["code"]) == ("unknown_request", "unknown_request")
    assert kept == {"event_id": "kept", "outcome": "stored"}


LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "event_id"),
        ({"events": []}, 422, "events"),
        ({"events": [event(item_id="i")]}, 422, "events[0].request_id"),
        ({"events": [event(item_id="i", request_id="r", at="2026-01-01")]}, 422, "events[0].at"),
        (event(item_id="i", request_id="r", at=LATER), 422, "at"),
        (event(item_id="i", request_id="r", event_type="love"), 422, "event_type"),
        (event(item_id="i", request_id="r", value=3), 422, "value"),
        (event(item_id="i", request_id="r", event_type="purchase", value=-3), 422, "value"),
        (event(item_id="i", request_id="r", event_type="purchase", value=1e308), 422, "value"),
        (event(item_id="i", request_id="r", event_type="purchase", value=2e9), 422, "value"),
        (event(item_id="", request_id="r"), 422, "item_id"),
        (event(item_id="i", request_id="r", color="red"), 422, "color"),
        ({"events": [event(item_id="i", request_id="r")] * 1001}, 413, "events"),
    ],
)
def test_bad_feedback_is_refused_whole(
    start_gateway: StartGateway, body: dict[str, Any], status: int, field: str
) -> None:
    gateway = start_gateway()
    response = gateway.http.post("/v1/feedback", json=body)
    assert (response.status_code, response.json()["field"]) == (status, field)
    assert list(gateway.store.feedback()) == []
