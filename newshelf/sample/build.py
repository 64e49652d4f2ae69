"""Draws the sample catalogue into a folder, with simulated shoppers; nothing is downloaded.

A shopper likes one or two styles, families of colours and families of materials, whatever the
category. A session stays in one category and favours some product types, whoever the shopper is.
A product is then chosen by

    P(item) ∝ exp(style + colour + material + popularity + session)

so the products of one shopper share a taste, and the products of one session share a type.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.progress import track

from newshelf.catalog.schema import EventType
from newshelf.config import Language
from newshelf.errors import SettingsError
from newshelf.files import directory_aside
from newshelf.sample.drawing import draw
from newshelf.sample.palette import (
    COLOR_FAMILIES,
    COLORS,
    MATERIAL_FAMILIES,
    MATERIALS,
    STYLES,
    make_look,
)
from newshelf.sample.pen import Pen
from newshelf.sample.products import (
    CATEGORIES,
    DAY,
    END,
    PRODUCT_TYPES,
    Blueprint,
    item_frame,
    plan_products,
)

_DAYS = 90
# Utilities of a product in the shopper's first style, colour family and material family, the
# share of them in a second one, and the deviation of the utility that all shoppers agree on.
_STYLE, _COLOR, _MATERIAL, _SECOND, _POPULARITY = 4.0, 3.0, 1.8, 0.7, 0.45
# Utility of the product types that a session favours, and the share of sessions without a taste.
_SESSION_TYPE, _BROWSING = 1.2, 0.05
# Dirichlet weights of a shopper's sessions over the categories.
_CATEGORY_WEIGHTS = (9.0, 3.2, 3.4)

Floats = npt.NDArray[np.float64]
Shop = dict[str, npt.NDArray[Any]]
"""The products as the shoppers see them: an array of each trait."""
Rows = Iterator[tuple[str, str, str, int]]


def simulate_events(blueprints: list[Blueprint], shoppers: int, seed: int) -> pd.DataFrame:
    """Return the events of ``shoppers`` shoppers over 90 days, sorted by time."""
    popularity = np.random.default_rng([seed, 3]).normal(0, _POPULARITY, len(blueprints))
    # New products came after the last event.
    popularity[[blueprint.is_new for blueprint in blueprints]] = -np.inf
    categories, kinds = list(CATEGORIES), list(PRODUCT_TYPES)
    shop: Shop = {
        "id": np.array([blueprint.item_id for blueprint in blueprints], dtype=object),
        "style": np.array([STYLES.index(blueprint.style) for blueprint in blueprints]),
        "color": np.array([COLOR_FAMILIES.index(COLORS[b.color].family) for b in blueprints]),
        "material": np.array(
            [MATERIAL_FAMILIES.index(MATERIALS[b.material].family) for b in blueprints]
        ),
        "category": np.array(
            [categories.index(blueprint.type.category) for blueprint in blueprints]
        ),
        "kind": np.array([kinds.index(blueprint.kind) for blueprint in blueprints]),
        "popularity": popularity,
    }
    rows = [
        row
        for number in range(shoppers)
        for row in _shopper(f"U{number:05d}", shop, np.random.default_rng([seed, 4, number]))
    ]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])
    return events.sort_values("timestamp", kind="stable", ignore_index=True)


def _taste(count: int, strength: float, rng: np.random.Generator) -> Floats:
    """Return the utility of each of ``count`` styles or families: one or two of them are liked."""
    liked = rng.permutation(count)[: 1 + int(rng.random() < 0.5)]
    taste = np.zeros(count)
    taste[liked] = strength * np.array([1.0, _SECOND])[: len(liked)]
    return taste


def _shopper(user_id: str, shop: Shop, rng: np.random.Generator) -> Rows:
    liking = (
        _taste(len(STYLES), _STYLE, rng)[shop["style"]]
        + _taste(len(COLOR_FAMILIES), _COLOR, rng)[shop["color"]]
        + _taste(len(MATERIAL_FAMILIES), _MATERIAL, rng)[shop["material"]]
        + shop["popularity"]
    )
    affinity = rng.dirichlet(_CATEGORY_WEIGHTS)
    seen = np.isneginf(shop["popularity"])
    for start in np.sort(rng.uniform(END - _DAYS * DAY, END - DAY / 4, 3 + rng.poisson(2.2))):
        category = int(rng.choice(len(CATEGORIES), p=affinity))
        shelf = np.flatnonzero((shop["category"] == category) & ~seen)
        chosen = _session(shop["kind"][shelf], liking[shelf], rng)
        seen[shelf[chosen]] = True
        now = int(start)
        for item in shelf[chosen]:
            for step in _funnel(liking[item], rng):
                yield user_id, str(shop["id"][item]), str(step), now
                now += int(rng.integers(8, 120))


def _session(
    kinds: npt.NDArray[np.int64], liking: Floats, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Choose the products looked at in one session among those not seen before."""
    favoured = rng.choice(len(PRODUCT_TYPES), size=8, replace=False)
    utility = liking + _SESSION_TYPE * np.isin(kinds, favoured)
    browsing = rng.random() < _BROWSING
    # The largest of utility plus Gumbel noise are draws from the softmax without
    # replacement (Kool et al., 2019).
    noise = rng.gumbel(size=len(kinds))
    count = min(2 + rng.poisson(1.3), len(kinds))
    best = np.argsort(-(noise if browsing else utility + noise), kind="stable")[:count]
    return rng.permutation(best)


def _funnel(utility: float, rng: np.random.Generator) -> list[EventType]:
    """View, then perhaps click, favourite, cart and purchase, sooner for what is liked."""
    keen = 1 / (1 + np.exp(3.5 - utility))
    steps = [EventType.VIEW]
    if rng.random() < 0.3 + 0.5 * keen:
        steps.append(EventType.CLICK)
        steps += [EventType.FAVOURITE] if rng.random() < 0.35 * keen else []
        if rng.random() < 0.1 + 0.35 * keen:
            steps.append(EventType.CART)
            steps += [EventType.PURCHASE] if rng.random() < 0.55 else []
    return steps


_QUALITY = 88
_MOST_WORKERS = 8
_CHUNK = 16


def draw_sample(
    folder: Path,
    *,
    seed: int = 7,
    products: int = 1300,
    shoppers: int = 1100,
    language: Language = "en",
) -> None:
    """Write the sample: ``items.parquet``, ``events.parquet`` and ``images/``.

    The same arguments give the same bytes in the same environment. ``folder`` is replaced whole.
    """
    if products < 60 or shoppers < 1:
        raise SettingsError("the sample needs at least 60 products and 1 shopper")
    blueprints = plan_products(products, seed)
    # Not forked: the caller may have threads (torch's), whose locks a fork would copy.
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with directory_aside(Path(folder)) as aside, pool:
        (aside / "images").mkdir()
        one = partial(draw_product, folder=aside, seed=seed)
        alone = workers == 1 or products <= 4 * _CHUNK
        drawn: Iterable[str] = (
            map(one, blueprints) if alone else pool.map(one, blueprints, chunksize=_CHUNK)
        )
        title, console = "Drawing the sample catalogue", Console(stderr=True)
        metals = list(track(drawn, title, total=products, console=console))
        items = item_frame(blueprints, metals, seed, language)
        items.to_parquet(aside / "items.parquet", index=False)
        events = simulate_events(blueprints, shoppers, seed)
        events.to_parquet(aside / "events.parquet", index=False)


def draw_product(blueprint: Blueprint, folder: Path, seed: int) -> str:
    """Draw one product's picture under ``folder``; return the name of its metal."""
    rng = np.random.default_rng([seed, 5, blueprint.number])
    look = make_look(blueprint.style, blueprint.color, blueprint.material, rng)
    pen = Pen(look, floor=blueprint.type.floor, jewel=blueprint.type.category == "Jewellery")
    draw(pen, blueprint.kind)
    pen.finished().save(folder / blueprint.image_link, "JPEG", quality=_QUALITY)
    return look.metal_name
