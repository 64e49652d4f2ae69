"""What people do, and what a shop asks about them, by HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from tests.gateways import Gateway


def do(gateway: Gateway, unit: str, *items: str, event_type: str = "click") -> None:
    now = datetime.now(UTC)
    events = [
        {
            "event_id": uuid4().hex,
            "event_type": event_type,
            "item_id": item,
            "unit": unit,
            "at": (now + timedelta(milliseconds=number)).isoformat(),
        }
        for number, item in enumerate(items)
    ]
    response = gateway.http.post("/v1/feedback", json={"events": events})
    assert response.json()["accepted"] == len(items)


def path(unit: str) -> str:
    return f"/v1/units/{quote(unit, safe='')}"


def merge(gateway: Gateway, visitor: str, unit: str) -> Any:
    return gateway.http.post("/v1/units/merge", json={"visitor": visitor, "unit": unit})
