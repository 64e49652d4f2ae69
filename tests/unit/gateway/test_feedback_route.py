"""What shoppers did comes in, once, and with the answer that showed the product."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newshelf.gateway.schemas import FeedbackOut
from tests.gateways import Gateway, StartGateway


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
    (kept,) = gateway.store.feedback()
    assert kept.key_name == "tests"


def test_a_client_cannot_name_another_key(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    _, items = shown(gateway, "u1")
    sent = event(item_id=items[0], unit="u1", key_name="web")
    assert gateway.http.post("/v1/feedback", json=sent).status_code == 422


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


def test_the_number_of_an_order_is_no_id_of_its_lines(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    request_id, items = shown(gateway)
    lines = [
        event(
            event_id="order-1001",
            event_type="purchase",
            item_id=item,
            request_id=request_id,
            value=value,
        )
        for item, value in zip(items, (10.0, 20.0, 30.0), strict=True)
    ]
    response = gateway.http.post("/v1/feedback", json={"events": lines})
    assert response.status_code == 200
    FeedbackOut.model_validate(response.json())
    assert response.json()["accepted"] == 1
    outcomes = [result["outcome"] for result in response.json()["results"]]
    assert outcomes == ["stored", "conflict", "conflict"]
    assert response.json()["results"][2]["field"] == "events[2].event_id"
    alone = gateway.http.post("/v1/feedback", json=lines[1])
    assert (alone.status_code, alone.json()["code"]) == (409, "conflict")
    counted = 'newshelf_gateway_feedback_total{outcome="conflict"} 3.0'
    assert counted in gateway.http.get("/metrics").text


def test_an_erased_units_late_event_is_refused_and_its_neighbours_are_kept(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    gateway.store.units.erase("u1", settle_s=0)
    late = event(event_id="late", event_type="favourite", item_id="item-001", unit="u1")
    kept = event(event_id="kept", event_type="favourite", item_id="item-001", unit="u2")
    both = gateway.http.post("/v1/feedback", json={"events": [late, kept]})
    assert (both.status_code, both.json()["accepted"]) == (200, 1)
    refused, stored = FeedbackOut.model_validate(both.json()).results
    assert (refused.code, refused.field) == ("erased_unit", "events[0].unit")
    assert stored.outcome == "unjoined"
    alone = gateway.http.post("/v1/feedback", json=late)
    assert (alone.status_code, alone.json()["field"]) == (410, "unit")
    # The shopper still gets an answer, which is not recorded.
    assert gateway.recommend("u1", history=["item-001"]).status_code == 200
    assert gateway.exposures() == []
    assert [one.unit for one in gateway.store.feedback()] == ["u2"]


NEVER_SET = [
    "0001-01-01T00:00:00+01:00",
    "0001-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999-14:00",
    (datetime.now(UTC) - timedelta(days=400)).isoformat(),
    # Of today, but longer before the answer than any clock is wrong.
    (datetime.now(UTC) - timedelta(days=2)).isoformat(),
    0,
    1_700_000_000,
    1_700_000_000_000.5,
    "1700000000",
    "-1700000000",
    True,
    ["2026-03-01T12:00:00Z"],
]


# Numbers as ids: moments differ between the processes that run the tests.
@pytest.mark.parametrize("at", NEVER_SET, ids=range(len(NEVER_SET)))
def test_a_moment_that_was_never_set_is_refused_and_hurts_no_other_event(
    start_gateway: StartGateway, at: object
) -> None:
    gateway = start_gateway()
    request_id, items = shown(gateway)
    bad = event(event_id="bad", item_id=items[0], request_id=request_id, at=at)
    alone = gateway.http.post("/v1/feedback", json=bad)
    assert (alone.status_code, alone.json()["code"]) == (422, "invalid_field")
    assert alone.json()["field"] == "at"
    only_bad = gateway.http.post("/v1/feedback", json={"events": [bad, bad]})
    assert (only_bad.status_code, only_bad.json()["field"]) == (422, "events[0].at")
    now = datetime.now(UTC).isoformat()
    good = event(event_id="good", item_id=items[0], request_id=request_id, at=now)
    both = gateway.http.post("/v1/feedback", json={"events": [good, bad]})
    assert (both.status_code, both.json()["accepted"]) == (200, 1)
    refused = FeedbackOut.model_validate(both.json()).results[1]
    assert (refused.event_id, refused.code, refused.field) == (
        "bad",
        "invalid_field",
        "events[1].at",
    )
    assert [kept.event_id for kept in gateway.store.feedback()] == ["good"]


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
    | st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = ["event_id", "event_type", "item_id", "at", "request_id", "unit", "value", "other"]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(field=st.sampled_from(FIELDS), value=ANY, kind=st.sampled_from(["click", "purchase"]))
def test_no_value_of_any_field_is_our_error_or_hurts_another_event(
    running: tuple[Gateway, str, list[str]], field: str, value: object, kind: str
) -> None:
    gateway, request_id, items = running
    good = event(event_id=uuid4().hex, item_id=items[0], request_id=request_id)
    odd = event(
        **{
            "event_id": uuid4().hex,
            "event_type": kind,
            "item_id": items[0],
            "request_id": request_id,
            field: value,
        }
    )
    body = json.dumps({"events": [odd, good]})
    response = gateway.http.post("/v1/feedback", content=body)
    assert response.status_code == 200, response.text
    refused, kept = FeedbackOut.model_validate(response.json()).results
    assert kept.outcome in {"stored", "duplicate"}
    alone = gateway.http.post("/v1/feedback", content=json.dumps(odd))
    assert alone.status_code == 200 or alone.json()["code"] == refused.code


@pytest.fixture
def running(start_gateway: StartGateway) -> tuple[Gateway, str, list[str]]:
    gateway = start_gateway()
    return gateway, *shown(gateway)


def test_a_rate_is_of_events_and_leaves_requests_alone(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    request_id, items = shown(gateway)
    secret = gateway.keys.add("slow", now=datetime.now(UTC), expires=None, rate_per_s=20)
    headers = {"Authorization": f"Bearer {secret}"}

    def post(number: int) -> httpx.Response:
        events = [
            event(event_id=uuid4().hex, item_id=items[0], request_id=request_id)
            for _ in range(number)
        ]
        return gateway.http.post("/v1/feedback", json={"events": events}, headers=headers)

    # The gateway looks at its keys each second.
    while (first := post(1000)).status_code == 401:
        time.sleep(0.05)
    assert first.json()["accepted"] == 1000
    refused = post(1)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 10
    assert "events each second" in refused.json()["message"]
    asked = gateway.http.post("/v1/recommend", json={"unit": "u", "k": 1}, headers=headers)
    assert asked.status_code == 200


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
