"""A new category's first twenty events: MAML's start beside the general model's."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from benchmarks.transfer.context import Context
from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.catalog import Catalog
from newshelf.errors import TrainingError
from newshelf.evaluation.figures.lines import Line, draw_lines
from newshelf.evaluation.metrics import hits, ndcg, tie_order, top_items
from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.transfer.loop import fit
from newshelf.transfer.meta.category_events import CategoryEvents, category_events
from newshelf.transfer.meta.event_task import (
    CategoryScorer,
    EventTasks,
    JointEvents,
    event_loss,
    event_part,
)
from newshelf.transfer.meta.maml import Maml, Predict
from newshelf.transfer.run import Run

__all__ = ["run"]

_CATEGORIES, _TEST, _VALIDATION = 40, 10, 6
_SUPPORT, _QUERIES, _CANDIDATES, _HISTORY = 20, 20, 64, 20
_CASES = 200
"""Shoppers of a category that are asked at most."""
_FEWEST_ITEMS, _FEWEST_SHOPPERS = 30, 150
"""Clusters below are no category."""
_SPEC = ScorerSpec(width=64, hidden=128, dropout=0.0)
_STEPS = (0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
_SHOWN = (0, 1, 2, 5, 10, 20, 50)
_INNER, _DRAWS = 5, 2
_COMPARED = 20
"""The general model's steps, whose NDCG is to be reached."""
_RATES = (0.03, 0.1, 0.3, 1.0)
"""Of fine-tuning; the best on the validation categories is taken."""
_K = 10

_GENERAL = "general model, fine-tuned"
_FIRST = "MAML, first order"
_SECOND = "MAML, second order"
_SCRATCH = "from scratch"
_POPULAR = "popularity in the 20 events"
_FEWER = f"steps to the general model's NDCG after {_COMPARED}"


def run(context: Context) -> TaskResult:
    """Measure NDCG over the steps of adapting to categories never seen."""
    catalog = context.catalog("retail")
    embeddings = F.normalize(context.backbone(catalog).table.text, dim=1)
    category = KMeans(_CATEGORIES, n_init=4, random_state=0).fit_predict(embeddings.numpy())
    shoppers = _shoppers(catalog)
    curves: dict[str, list[list[float]]] = {}
    rates: list[dict[str, float]] = []
    for seed in context.seeds:
        world = _world(embeddings, category, shoppers, seed)
        measured, chosen = _measure(world, seed, context)
        rates.append(chosen)
        for method, curve in measured.items():
            curves.setdefault(method, []).append(curve)
    figure = context.figures / "maml-steps.png"
    draw_lines(
        {"A new category from 20 events": _lines(curves)},
        figure,
        xlabel="gradient steps",
        ylabel=f"NDCG@{_K}",
    )
    return TaskResult(
        task="maml",
        title="Adapting the scorer to a new category from 20 events",
        protocol=_PROTOCOL,
        rows=_rows(curves),
        goals=(Goal(_FEWER, -1.0, "plus"),),
        notes=_notes(rates),
        figures={f"NDCG@{_K} over the gradient steps on 20 events of a new category": figure},
        percent=False,
        lower_is_better=(_FEWER,),
    )


_PROTOCOL = (
    f"retail has no types: its {_CATEGORIES} categories are k-means clusters of the titles' "
    f"features (of the whole catalogue, no event is used). Each seed holds out {_TEST} as new "
    f"and {_VALIDATION} for validation; the others are learned from. A category's new "
    "event is a purchase in it, with what the shopper bought earlier in the categories that are "
    f"learned from. Of each new category, half of the shoppers give the {_SUPPORT} events to "
    f"adapt to (one each, two draws), and up to {_CASES} of the others are asked: all the "
    "category's products are ranked, what the shopper took there from then on is right."
)


@dataclass(frozen=True)
class _New:
    """A category held out."""

    events: CategoryEvents
    adapt: IntArray
    """Events that may be adapted to."""
    asked: IntArray
    """The first event of each of the other shoppers."""
    cases: list[Case]
    """What each of them took, parallel to ``asked``."""


@dataclass(frozen=True)
class _World:
    embeddings: Tensor
    train: list[CategoryEvents]
    validation: list[_New]
    new: list[_New]


@dataclass(frozen=True)
class _Shoppers:
    sequences: list[IntArray]
    timestamps: list[IntArray]


def _shoppers(catalog: Catalog) -> _Shoppers:
    if catalog.events is None:
        raise TrainingError(f"{catalog.folder} has no events to adapt to")
    frame = catalog.events
    rows = frame["item_id"].map(catalog.item_index).to_numpy(dtype=np.int64)
    times = frame["timestamp"].to_numpy(dtype=np.int64)
    groups = frame.groupby("user_id", sort=True).indices.values()
    places = [np.sort(group) for group in groups]
    return _Shoppers([rows[at] for at in places], [times[at] for at in places])


def _world(embeddings: Tensor, category: IntArray, shoppers: _Shoppers, seed: int) -> _World:
    rng = np.random.default_rng(seed)
    order = rng.permutation(_usable(category, shoppers))
    new, validation = order[:_TEST], order[_TEST : _TEST + _VALIDATION]
    train = order[_TEST + _VALIDATION :]
    known = np.isin(category, train)

    def events(inside: BoolArray) -> CategoryEvents:
        return category_events(
            shoppers.sequences,
            shoppers.timestamps,
            inside,
            known & ~inside,
            max_history=_HISTORY,
        )

    return _World(
        embeddings,
        [
            events(category == number)
            for number in train
            if (category == number).sum() >= _CANDIDATES
        ],
        [_held_out(events(category == number), rng) for number in validation],
        [_held_out(events(category == number), rng) for number in new],
    )


def _usable(category: IntArray, shoppers: _Shoppers) -> list[int]:
    """Categories with enough products to rank and shoppers to adapt to and to ask."""
    visits = np.zeros(_CATEGORIES, dtype=np.int64)
    for sequence in shoppers.sequences:
        visits[np.unique(category[sequence])] += 1
    sizes = np.bincount(category, minlength=_CATEGORIES)
    return np.flatnonzero((sizes >= _FEWEST_ITEMS) & (visits >= _FEWEST_SHOPPERS)).tolist()


def _held_out(events: CategoryEvents, rng: np.random.Generator) -> _New:
    order = rng.permutation(np.unique(events.shopper))
    half = len(order) // 2
    others = events.of(order[half : half + _CASES])
    _, first = np.unique(events.shopper[others], return_index=True)
    asked = others[first]
    nothing = np.zeros(0, dtype=np.int64)
    cases = [
        Case(nothing, np.unique(events.target[events.shopper == events.shopper[at]]))
        for at in asked
    ]
    return _New(events, events.of(order[:half]), asked, cases)


def _ndcg(world: _World, held: _New, predict: Predict) -> float:
    """Mean over the shoppers asked; all products of the category are ranked."""
    part = event_part(world.embeddings, held.events, held.asked, None)
    with torch.no_grad():
        scores = predict(part.history, part.mask, part.candidates).numpy()
    return _ndcg_of(scores, held)


def _ndcg_of(scores: FloatArray, held: _New) -> float:
    size = len(held.events.items)
    top = top_items(scores, _K, tie_order(size))
    return float(ndcg(hits(top, held.cases, size), held.cases, _K).mean())


def _curve(
    world: _World, categories: Sequence[_New], maml: Maml, steps: Sequence[int], draws: int
) -> list[float]:
    """NDCG after each of ``steps``, mean over categories and draws of the 20 events."""
    found = []
    for held in categories:
        for draw in range(draws):
            support = event_part(world.embeddings, held.events, _twenty(held, draw), None)
            path = enumerate(maml.trajectory(support, max(steps)))
            found.append(
                [_ndcg(world, held, partial(maml.predict, p)) for at, p in path if at in steps]
            )
    mean: list[float] = np.mean(found, axis=0).tolist()
    return mean


def _twenty(held: _New, draw: int) -> IntArray:
    rng = np.random.default_rng(draw)
    order = rng.permutation(held.adapt)
    _, first = np.unique(held.events.shopper[order], return_index=True)
    return order[np.sort(first)[:_SUPPORT]]


def _popularity(categories: Sequence[_New]) -> float:
    found = []
    for held in categories:
        for draw in range(_DRAWS):
            taken = held.events.target[_twenty(held, draw)]
            counts = np.bincount(taken, minlength=len(held.events.items)).astype(np.float32)
            found.append(_ndcg_of(np.tile(counts, (len(held.cases), 1)), held))
    return float(np.mean(found))


def _measure(
    world: _World, seed: int, context: Context
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """NDCG over ``_STEPS`` by method, and the rates that were chosen."""
    run = Run(seed, context.console, quiet=True)
    tasks = EventTasks(world.embeddings, world.train, _SUPPORT, _QUERIES, _CANDIDATES)
    torch.manual_seed(seed)
    scratch = CategoryScorer(SiameseScorer(_SPEC, world.embeddings.shape[1]))
    general = copy.deepcopy(scratch)
    joint = JointEvents(general)
    fit(
        "general",
        joint,
        tasks.batches(tasks=8, steps=20),
        torch.optim.AdamW(joint.parameters(), lr=1e-3, weight_decay=0.01),
        run,
        epochs=10,
        validate=lambda: float(np.mean([_ndcg(world, c, general) for c in world.validation])),
        patience=3,
    )
    models = {
        _SCRATCH: _plain(world, scratch),
        _GENERAL: _plain(world, general),
        _FIRST: _meta_trained(world, general, tasks, run, first_order=True),
        _SECOND: _meta_trained(world, general, tasks, run, first_order=False),
    }
    curves = {name: _curve(world, world.new, m, _STEPS, _DRAWS) for name, m in models.items()}
    curves[_POPULAR] = [_popularity(world.new)] * len(_STEPS)
    return curves, {name: float(models[name].rate) for name in (_SCRATCH, _GENERAL)}


def _plain(world: _World, model: CategoryScorer) -> Maml:
    """Gradient descent from ``model``, at the rate that is best on the validation part."""

    def reached(rate: float) -> float:
        maml = Maml(model, event_loss, steps=_COMPARED, rate=rate)
        return max(_curve(world, world.validation, maml, (_COMPARED // 2, _COMPARED), 1))

    return Maml(model, event_loss, steps=_COMPARED, rate=max(_RATES, key=reached))


def _meta_trained(
    world: _World, general: CategoryScorer, tasks: EventTasks, run: Run, *, first_order: bool
) -> Maml:
    """MAML from the general model on, with learned rates."""
    maml = Maml(
        copy.deepcopy(general),
        event_loss,
        steps=_INNER,
        rate=0.1,
        first_order=first_order,
        learn_rates=True,
        every_step=True,
    )
    groups = [
        {"params": [*maml.model.parameters()], "lr": 5e-4},
        {"params": [maml.log_rates], "lr": 0.03},
    ]
    fit(
        "maml-first" if first_order else "maml-second",
        maml,
        tasks.batches(tasks=4, steps=20),
        torch.optim.AdamW(groups, weight_decay=0.01),
        run,
        epochs=8,
        validate=lambda: max(_curve(world, world.validation, maml, (1, 2, _INNER), 1)),
        patience=3,
    )
    return maml


def _steps_to(curve: Sequence[float], wanted: float) -> float:
    """The first of ``_STEPS`` that reaches ``wanted``; the last one where none does."""
    reached = [step for step, value in zip(_STEPS, curve, strict=True) if value >= wanted]
    return float(reached[0] if reached else _STEPS[-1])


def _rows(curves: Mapping[str, list[list[float]]]) -> list[Row]:
    rows = []
    for step in _SHOWN:
        at = _STEPS.index(step)
        for method, seeds in curves.items():
            values = [curve[at] for curve in seeds]
            baseline = method in {_GENERAL, _SCRATCH, _POPULAR}
            rows.append(Row(f"NDCG@{_K} after {step} steps", method, values, baseline=baseline))
    wanted = [curve[_STEPS.index(_COMPARED)] for curve in curves[_GENERAL]]
    for method in (_GENERAL, _FIRST, _SECOND, _SCRATCH):
        values = [_steps_to(c, w) for c, w in zip(curves[method], wanted, strict=True)]
        rows.append(Row(_FEWER, method, values, baseline=method == _GENERAL))
    return rows


def _lines(curves: Mapping[str, list[list[float]]]) -> dict[str, Line]:
    return {
        method: Line(_STEPS, np.mean(seeds, axis=0).tolist(), np.std(seeds, axis=0).tolist())
        for method, seeds in curves.items()
    }


def _notes(rates: Sequence[Mapping[str, float]]) -> list[str]:
    chosen = "; ".join(
        ", ".join(f"{method} {rate:g}" for method, rate in of_seed.items()) for of_seed in rates
    )
    return [
        f"For `{_FEWER}` fewer is better. A method that never reaches it counts as "
        f"{_STEPS[-1]}. The goal is at least one step fewer than the general model needs.",
        f"The general model is trained on the events of the learned categories alike, and is "
        f"where both kinds of MAML begin; they take {_INNER} inner steps with one learned rate "
        "for each tensor, and the query loss after every step counts.",
        f"Rates of the plain fine-tuning, chosen on the validation categories, by seed: {chosen}.",
    ]
