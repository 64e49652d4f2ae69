"""Categories held out of a shop's events: what the benchmark ``maml`` adapts to and asks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.methods.meta.event_tasks import CategoryEvents, Events, category_events, event_part
from benchmarks.methods.meta.maml import Predict
from newshelf.catalog import Catalog
from newshelf.errors import TrainingError
from newshelf.evaluation.metrics import hits, ndcg, tie_order, top_items
from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray

__all__ = [
    "CANDIDATES",
    "CASES",
    "CATEGORIES",
    "SUPPORT",
    "TEST",
    "VALIDATION",
    "K",
    "New",
    "Shoppers",
    "World",
    "make_world",
    "ndcg_after",
    "ndcg_of_scores",
    "read_shoppers",
    "support_events",
]

CATEGORIES, TEST, VALIDATION = 40, 10, 6
SUPPORT, CANDIDATES, K = 20, 64, 10
CASES = 200
"""Shoppers of a category that are asked at most."""
_HISTORY = 20
_FEWEST_ITEMS, _FEWEST_SHOPPERS = 30, 150
"""Clusters below are no category."""


@dataclass(frozen=True)
class New:
    """A category held out."""

    events: CategoryEvents
    adapt: IntArray
    """Events that may be adapted to."""
    asked: Events
    """The first event of each of the other shoppers, against all the category's products."""
    cases: list[Case]
    """What each of them took, parallel to ``asked``."""


@dataclass(frozen=True)
class World:
    """The categories of a seed."""

    embeddings: Tensor
    train: list[CategoryEvents]
    validation: list[New]
    new: list[New]


@dataclass(frozen=True)
class Shoppers:
    """What each shopper took, oldest first, and when."""

    sequences: list[IntArray]
    timestamps: list[IntArray]


def read_shoppers(catalog: Catalog) -> Shoppers:
    """The sequences of a catalogue's events.

    Raises:
        TrainingError: it has none.
    """
    if catalog.events is None:
        raise TrainingError(f"{catalog.folder} has no events to adapt to")
    frame = catalog.events
    rows = frame["item_id"].map(catalog.item_index).to_numpy(dtype=np.int64)
    times = frame["timestamp"].to_numpy(dtype=np.int64)
    groups = frame.groupby("user_id", sort=True).indices.values()
    places = [np.sort(group) for group in groups]
    return Shoppers([rows[at] for at in places], [times[at] for at in places])


def make_world(embeddings: Tensor, category: IntArray, shoppers: Shoppers, seed: int) -> World:
    """Hold categories out; see the protocol of the task ``maml``."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(_usable(category, shoppers))
    new, validation = order[:TEST], order[TEST : TEST + VALIDATION]
    train = order[TEST + VALIDATION :]
    known = np.isin(category, train)

    def events(inside: BoolArray) -> CategoryEvents:
        return category_events(
            shoppers.sequences,
            shoppers.timestamps,
            inside,
            known & ~inside,
            max_history=_HISTORY,
        )

    return World(
        embeddings,
        [
            events(category == number)
            for number in train
            if (category == number).sum() >= CANDIDATES
        ],
        [_held_out(embeddings, events(category == number), rng) for number in validation],
        [_held_out(embeddings, events(category == number), rng) for number in new],
    )


def _usable(category: IntArray, shoppers: Shoppers) -> list[int]:
    """Categories with enough products to rank and shoppers to adapt to and to ask."""
    visits = np.zeros(CATEGORIES, dtype=np.int64)
    for sequence in shoppers.sequences:
        visits[np.unique(category[sequence])] += 1
    sizes = np.bincount(category, minlength=CATEGORIES)
    return np.flatnonzero((sizes >= _FEWEST_ITEMS) & (visits >= _FEWEST_SHOPPERS)).tolist()


def _held_out(embeddings: Tensor, events: CategoryEvents, rng: np.random.Generator) -> New:
    order = rng.permutation(np.unique(events.shopper))
    half = len(order) // 2
    others = events.of(order[half : half + CASES])
    _, first = np.unique(events.shopper[others], return_index=True)
    asked = others[first]
    nothing = np.zeros(0, dtype=np.int64)
    cases = [
        Case(nothing, np.unique(events.target[events.shopper == events.shopper[at]]))
        for at in asked
    ]
    questions = event_part(embeddings, events, asked, None)
    return New(events, events.of(order[:half]), questions, cases)


def ndcg_after(held: New, predict: Predict) -> float:
    """Mean over the shoppers asked; all products of the category are ranked."""
    part = held.asked
    with torch.no_grad():
        scores = predict(part.history, part.mask, part.candidates).numpy()
    return ndcg_of_scores(scores, held)


def ndcg_of_scores(scores: FloatArray, held: New) -> float:
    """Mean NDCG@K of ``(cases, products)`` scores."""
    size = len(held.events.items)
    top = top_items(scores, K, tie_order(size))
    return float(ndcg(hits(top, held.cases, size), held.cases, K).mean())


def support_events(held: New, draw: int) -> IntArray:
    """Numbers of the events to adapt to, one each of different shoppers."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(held.adapt)
    _, first = np.unique(held.events.shopper[order], return_index=True)
    return order[np.sort(first)[:SUPPORT]]
