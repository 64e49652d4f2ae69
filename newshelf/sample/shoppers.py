"""Simulated shoppers, whose taste crosses categories.

A shopper likes one or two styles, families of colours and families of materials, whatever
the category. A session stays in one category, with a leaning to a type or two that says
nothing about the shopper; the product is then chosen by

    P(item) ∝ exp(style + colour + material + popularity + session)

so that what two products of one shopper share is their taste, and what two products of
one session share is their type.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.schema import EventType
from newshelf.sample.look import STYLES
from newshelf.sample.palette import COLOR_FAMILIES, COLORS, MATERIAL_FAMILIES, MATERIALS
from newshelf.sample.plan import DAY, END, Blueprint
from newshelf.sample.shelves import CATEGORIES, SHELVES

__all__ = ["simulate_events"]

_DAYS = 90
_STYLE, _COLOR, _MATERIAL = 4.0, 3.0, 1.8
"""Utility of a product in the shopper's first style, colour family, material family."""
_SECOND = 0.7
"""Share of it for the second one, if the shopper has one."""
_POPULARITY = 0.45
"""Standard deviation of the utility that is the same for every shopper."""
_SESSION_TYPE = 1.2
_CATEGORY_WEIGHTS = (9.0, 3.2, 3.4)
"""Of the Dirichlet distribution of a shopper's sessions over the categories."""
_BROWSING = 0.05
"""Share of the views that follow no taste at all."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Shop:
    """The products as the shoppers see them; all arrays are ``(products,)``."""

    ids: npt.NDArray[np.object_]
    style: npt.NDArray[np.int64]
    color: npt.NDArray[np.int64]
    material: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    popularity: Floats
    """−inf for products that came after the last event."""


def simulate_events(blueprints: list[Blueprint], shoppers: int, seed: int) -> pd.DataFrame:
    """The events of ``shoppers`` shoppers over 90 days, sorted by time."""
    rng = np.random.default_rng([seed, 3])
    shop = _shop(blueprints, rng)
    rows: list[tuple[str, str, str, int]] = []
    for number in range(shoppers):
        rows += _shopper(f"U{number:05d}", shop, np.random.default_rng([seed, 4, number]))
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])
    return events.sort_values("timestamp", kind="stable", ignore_index=True)


def _shop(blueprints: list[Blueprint], rng: np.random.Generator) -> _Shop:
    kinds = list(SHELVES)
    popularity = rng.normal(0, _POPULARITY, len(blueprints))
    popularity[[blueprint.is_new for blueprint in blueprints]] = -np.inf
    return _Shop(
        ids=np.array([blueprint.item_id for blueprint in blueprints], dtype=object),
        style=np.array([STYLES.index(blueprint.style) for blueprint in blueprints]),
        color=np.array([COLOR_FAMILIES.index(COLORS[b.color].family) for b in blueprints]),
        material=np.array(
            [MATERIAL_FAMILIES.index(MATERIALS[b.material].family) for b in blueprints]
        ),
        category=np.array([CATEGORIES.index(b.shelf.category) for b in blueprints]),
        kind=np.array([kinds.index(blueprint.kind) for blueprint in blueprints]),
        popularity=popularity,
    )


def _taste(count: int, strength: float, rng: np.random.Generator) -> Floats:
    """Utility of each of ``count`` styles or families: one or two of them are liked."""
    liked = rng.permutation(count)[: 1 + int(rng.random() < 0.5)]
    taste = np.zeros(count)
    taste[liked] = strength * np.array([1.0, _SECOND])[: len(liked)]
    return taste


def _shopper(
    user_id: str, shop: _Shop, rng: np.random.Generator
) -> list[tuple[str, str, str, int]]:
    liking = (
        _taste(len(STYLES), _STYLE, rng)[shop.style]
        + _taste(len(COLOR_FAMILIES), _COLOR, rng)[shop.color]
        + _taste(len(MATERIAL_FAMILIES), _MATERIAL, rng)[shop.material]
        + shop.popularity
    )
    affinity = rng.dirichlet(_CATEGORY_WEIGHTS)
    seen = np.isneginf(shop.popularity)
    rows: list[tuple[str, str, str, int]] = []
    for start in np.sort(rng.uniform(END - _DAYS * DAY, END - DAY / 4, 3 + rng.poisson(2.2))):
        category = int(rng.choice(len(CATEGORIES), p=affinity))
        chosen = _session(shop, liking, category, seen, rng)
        seen[chosen] = True
        rows += _funnel(user_id, shop.ids[chosen], liking[chosen], int(start), rng)
    return rows


def _session(
    shop: _Shop,
    liking: Floats,
    category: int,
    seen: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """The products looked at in one session, none of them twice by one shopper."""
    shelf = np.flatnonzero((shop.category == category) & ~seen)
    leaning = rng.choice(len(SHELVES), size=8, replace=False)
    utility = liking[shelf] + _SESSION_TYPE * np.isin(shop.kind[shelf], leaning)
    browsing = rng.random() < _BROWSING
    # The largest of utility plus Gumbel noise are draws from the softmax without
    # replacement (Kool et al., 2019).
    noise = rng.gumbel(size=len(shelf))
    count = min(2 + rng.poisson(1.3), len(shelf))
    best = np.argsort(-(noise if browsing else utility + noise), kind="stable")[:count]
    chosen: npt.NDArray[np.int64] = shelf[rng.permutation(best)]
    return chosen


def _funnel(
    user_id: str, ids: npt.NDArray[np.object_], liking: Floats, start: int, rng: np.random.Generator
) -> list[tuple[str, str, str, int]]:
    """View, then perhaps click, favourite, cart and purchase, sooner for what is liked."""
    rows = []
    now = start
    for item_id, utility in zip(ids, liking, strict=True):
        keen = 1 / (1 + np.exp(3.5 - utility))
        steps = [EventType.VIEW]
        if rng.random() < 0.3 + 0.5 * keen:
            steps.append(EventType.CLICK)
            steps += [EventType.FAVOURITE] if rng.random() < 0.35 * keen else []
            if rng.random() < 0.1 + 0.35 * keen:
                steps.append(EventType.CART)
                steps += [EventType.PURCHASE] if rng.random() < 0.55 else []
        for step in steps:
            rows.append((user_id, str(item_id), str(step), now))
            now += int(rng.integers(8, 120))
    return rows
