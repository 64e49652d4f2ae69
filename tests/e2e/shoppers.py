"""Simulated shoppers: each asks for products, and clicks on those that people like them took."""

import http.client
import json
import random
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from newshelf.catalog.catalog import Catalog
from tests.e2e.remade import K

__all__ = ["Shoppers"]

_HISTORY = 3
_TASTE = 0.6
_CHANCE = 0.03
"""Of a click on a product that the shopper does not look for."""


@dataclass
class Shoppers:
    """Threads, one request at a time each, until the ``with`` block ends."""

    url: str
    key: str
    catalog: Catalog
    name: str
    """Beginning of the units' names, so that each rollout has shoppers of its own."""
    units: int = 1500
    threads: int = 3
    retry: bool = False
    """Send feedback again that was not acknowledged, as a front end does."""
    answered: dict[str, str] = field(default_factory=dict)
    """Unit by request id: what a shopper saw."""
    acknowledged: set[str] = field(default_factory=set)
    """Event ids."""
    failed: list[str] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._lock = threading.Lock()
        events = self.catalog.events
        assert events is not None
        taken = events.groupby("user_id")["item_id"].agg(lambda ids: list(dict.fromkeys(ids)))
        self._taken = [ids for ids in taken if len(ids) > 2 * _HISTORY]
        self._running = [
            threading.Thread(target=self._shop, args=[number], name=f"shopper-{number}")
            for number in range(self.threads)
        ]

    def __enter__(self) -> "Shoppers":
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._running:
            thread.join()

    def _shop(self, number: int) -> None:
        drawn = random.Random(f"{self.name} {number}")
        front = _Front(self.url, self.key)
        while not self._ended.is_set():
            unit = drawn.randrange(self.units)
            ids = self._taken[unit % len(self._taken)]
            body = {"unit": f"{self.name}-{unit}", "history": ids[:_HISTORY], "k": K}
            status, answer = front.post("/v1/recommend", body)
            with self._lock:
                if status != http.client.OK:
                    self.failed.append(f"{status}: {answer}")
                    continue
                self.answered[answer["request_id"]] = body["unit"]
                self.sources[answer["source"]] = self.sources.get(answer["source"], 0) + 1
            self._click(front, drawn, answer, set(ids[_HISTORY:]))
        front.close()

    def _click(self, front: "_Front", drawn: random.Random, answer: dict, liked: set[str]) -> None:
        clicked = [
            item["id"]
            for item in answer["items"]
            if drawn.random() < (_TASTE if item["id"] in liked else _CHANCE)
        ]
        if not clicked:
            return
        events = [
            {
                "event_id": f"{answer['request_id']}-{item}",
                "event_type": "click",
                "item_id": item,
                "request_id": answer["request_id"],
            }
            for item in clicked
        ]
        for _ in range(20 if self.retry else 1):
            status, told = front.post("/v1/feedback", {"events": events})
            while status == http.client.TOO_MANY_REQUESTS and not self._ended.wait(0.1):
                # A fast machine reaches the key's rate; a front end waits and sends again.
                status, told = front.post("/v1/feedback", {"events": events})
            if status == http.client.TOO_MANY_REQUESTS:
                return
            with self._lock:
                if status == http.client.OK:
                    self.acknowledged.update(event["event_id"] for event in events)
                    return
                self.failed.append(f"feedback {status}: {told}")
            self._ended.wait(0.3)


class _Front:
    """A kept connection; one that broke is opened again for the next request."""

    def __init__(self, url: str, key: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=30
        )
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, path: str, body: object) -> tuple[int, dict]:
        """Status and answer; 0 when there was none."""
        try:
            self._connection.request("POST", path, json.dumps(body), self._headers)
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            return 0, {"message": repr(error)}

    def close(self) -> None:
        self._connection.close()
