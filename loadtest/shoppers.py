"""Shoppers of a gateway, and the shop's changes of products, drawn while the load runs.

Each shopper likes one type of product, which no request names. What a shopper clicks and buys goes
back as feedback, and the next answers must know it.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.pool import NewProducts
from loadtest.recorder import FALLBACK, RIGHT, WRONG
from loadtest.requests import BAD_FOR_GATEWAY, Rendered, as_json
from loadtest.traffic import Kind, ShopKind, ShopTraffic
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.errors import CatalogError

STALE = "product of the history"
"""Result of an answer with a product that the shopper has clicked before."""
LOST = "event not kept"
_KNOWN_AFTER_NS = 2_000_000_000
"""Time after its acknowledgement from which each process of a gateway knows an event."""
_MOST_CLICKED = 40
"""Products of a shopper up to which all are in the history that the gateway reads."""
_KEPT = {"stored", "duplicate", "spooled"}
_MOST_ITEMS = 200
_NEW = 0.3
"""Share of changes that are new products; the others change a price."""
_WORDS = 3


@dataclass
class Kept:
    """Answers and events that the gateway acknowledged, and products that the load created."""

    answers: dict[str, list[str]] = field(default_factory=dict)
    """Request ids by unit."""
    events: dict[str, list[str]] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)

    def add(self, other: "Kept") -> None:
        """Add what another process got, or the same one until later."""
        self.answers |= other.answers
        self.events |= other.events
        self.items = [*dict.fromkeys([*self.items, *other.items])]


@dataclass
class _Shopper:
    unit: str
    likes: object
    """A type of product."""
    left: int = 0
    """Requests until the visit ends."""
    clicked: dict[str, int] = field(default_factory=dict)
    """Products, and when feedback on them was acknowledged."""

    def knows(self, item: str, sent_ns: int) -> bool:
        """Return whether an answer to a request of that time must leave the product out."""
        at_ns = self.clicked.get(item)
        full = len(self.clicked) > _MOST_CLICKED
        return at_ns is not None and not full and at_ns < sent_ns - _KNOWN_AFTER_NS


class Shoppers(Iterator[Rendered]):
    """Iterator over the requests of one process; the checks of their responses drive it."""

    def __init__(
        self, catalog: Catalog, traffic: ShopTraffic, random: np.random.Generator, name: str
    ) -> None:
        """Let no shopper enter yet; ``name`` begins the ids of units and products.

        Raises:
            CatalogError: no product has a text.
        """
        self._traffic, self._random, self._name = traffic, random, name
        self._products = NewProducts(catalog, (), random.spawn(1)[0])
        if not self._products.has("text"):
            raise CatalogError(f"{catalog.folder} has no titles, which the load sends")
        items = catalog.items
        self._types: dict[str, object] = dict(zip(items["id"], items["product_type"], strict=True))
        likes = random.choice(items["product_type"].to_numpy(dtype=object), traffic.units)
        self._away = [_Shopper(f"{name}-{at}", one) for at, one in enumerate(likes)]
        self._visits: list[_Shopper] = []
        self._events: deque[tuple[_Shopper, list[dict[str, Any]]]] = deque()
        """Feedback that is to be sent."""
        self._own: list[dict[str, Any]] = []
        self._kinds: list[ShopKind] = list(traffic.mix)
        weights = np.array([traffic.mix[kind] for kind in self._kinds])
        self._shares = weights / weights.sum()
        self.kept = Kept()

    def __next__(self) -> Rendered:
        if self._random.random() < self._traffic.bad_share:
            return BAD_FOR_GATEWAY[int(self._random.integers(len(BAD_FOR_GATEWAY)))]
        if self._events:
            return self._feedback(*self._events.popleft())
        return self._drawn(self._kinds[int(self._random.choice(len(self._kinds), p=self._shares))])

    def firsts(self) -> list[Rendered]:
        """Return a good request of each kind of the mix."""
        return [self._drawn(kind) for kind, weight in self._traffic.mix.items() if weight]

    def _drawn(self, kind: ShopKind) -> Rendered:
        return self._item() if kind == "items" else self._browse(self._visitor(), kind)

    def _visitor(self) -> _Shopper:
        while len(self._visits) < min(self._traffic.shoppers, self._traffic.units):
            entering = self._away.pop(int(self._random.integers(len(self._away))))
            entering.left = int(self._random.geometric(1 / self._traffic.session_requests))
            self._visits.append(entering)
        shopper = self._visits[int(self._random.integers(len(self._visits)))]
        shopper.left -= 1
        if not shopper.left:
            self._visits.remove(shopper)
            self._away.append(shopper)
        return shopper

    def _browse(self, shopper: _Shopper, kind: ShopKind) -> Rendered:
        body: dict[str, Any] = {"unit": shopper.unit, "k": self._traffic.k}
        if kind == "search":
            product = self._products.draw("text").fields
            text = product.get("title") or product["description"]
            body["text"] = " ".join(text.split()[:_WORDS])
        elif kind == "similar":
            seen = [*shopper.clicked] or [*self._types]
            body["item"] = seen[int(self._random.integers(len(seen)))]
        check = partial(self._see, shopper, kind, time.monotonic_ns())
        return _checked(kind, f"/v1/{kind}", body, check)

    def _see(self, shopper: _Shopper, kind: ShopKind, sent_ns: int, body: bytes) -> str:
        """Check an answer, and let the shopper click what is liked."""
        answer = json.loads(body)
        items, request_id = answer["items"], answer["request_id"]
        ids = [item["id"] for item in items]
        found = ids or kind == "search"
        if not found or len(ids) > self._traffic.k or len({*ids}) < len(ids):
            return WRONG
        if ids:
            self.kept.answers.setdefault(shopper.unit, []).append(request_id)
        ranked = [item["id"] for item in items if item["source"] != "pinned"]
        if kind == "recommend" and any(shopper.knows(one, sent_ns) for one in ranked):
            return STALE
        events = [
            {
                "event_id": f"{request_id}-{event_type}-{place}",
                "event_type": event_type,
                "item_id": item,
                "request_id": request_id,
                **({"value": 10.0} if event_type == "purchase" else {}),
            }
            for place, item in enumerate(ids)
            for event_type in self._reaction(self._types.get(item) == shopper.likes)
        ]
        if events:
            self._events.append((shopper, events))
        return FALLBACK if answer["source"] == "fallback" else RIGHT

    def _reaction(self, liked: bool) -> Sequence[str]:
        if self._random.random() >= (self._traffic.taste if liked else self._traffic.chance):
            return ()
        buys = self._random.random() < self._traffic.buys
        return ("click", "cart", "purchase") if buys else ("click",)

    def _feedback(self, shopper: _Shopper, events: list[dict[str, Any]]) -> Rendered:
        check = partial(self._acknowledge, shopper, events)
        return _checked("feedback", "/v1/feedback", {"events": events}, check)

    def _acknowledge(self, shopper: _Shopper, events: list[dict[str, Any]], body: bytes) -> str:
        results = json.loads(body)["results"]
        outcomes = {one["event_id"]: one["outcome"] for one in results}
        kept = [one for one in events if outcomes.get(one["event_id"]) in _KEPT]
        self.kept.events.setdefault(shopper.unit, []).extend(one["event_id"] for one in kept)
        for one in kept:
            if outcomes[one["event_id"]] != "spooled":
                shopper.clicked.setdefault(one["item_id"], time.monotonic_ns())
        return RIGHT if len(kept) == len(events) == len(results) else LOST

    def _item(self) -> Rendered:
        """Return a new product like one of the catalogue, or one of these at another price."""
        if not self._own or (len(self._own) < _MOST_ITEMS and self._random.random() < _NEW):
            fields = self._products.draw("text").fields
            product = {"id": f"{self._name}-item-{len(self._own)}", **fields}
            self._own.append(product)
            self._types[product["id"]] = product.get("product_type")
            self.kept.items.append(product["id"])
        product = self._own[int(self._random.integers(len(self._own)))]
        product["price"] = round(float(self._random.uniform(5, 100)), 2)
        return _checked("items", "/v1/items", {"items": [product]}, _stored)


def draw_shoppers(folder: Path, traffic: ShopTraffic, seed: Sequence[int], number: int) -> Shoppers:
    """Return the shoppers of one process; a fresh ``number`` keeps those of other runs apart."""
    name = f"loadtest-{number}"
    return Shoppers(read_catalog(folder), traffic, np.random.default_rng(seed), name)


def _checked(
    kind: Kind, path: str, body: Mapping[str, Any], check: Callable[[bytes], str]
) -> Rendered:
    return replace(as_json(kind, path, body), check=check)


def _stored(body: bytes) -> str:
    return RIGHT if json.loads(body)["accepted"] == 1 else WRONG
