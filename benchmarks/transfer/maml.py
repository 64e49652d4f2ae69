"""Adapting the scorer to a new category from 20 events: MAML and the general model."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from benchmarks.methods.meta.event_tasks import (
    CategoryEvents,
    CategoryScorer,
    Events,
    EventTasks,
    JointEvents,
    category_events,
    event_loss,
    event_part,
)
from benchmarks.methods.meta.maml import Maml, Predict
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.transfer.command import TransferContext
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import Sequences
from newshelf.errors import TrainingError
from newshelf.evaluation.metrics import hits, ndcg, tie_order, top_items
from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.report.plots import Line, draw_lines
from newshelf.training.loop import fit
from newshelf.training.run import Run

CATEGORIES, TEST, VALIDATION = 40, 10, 6
SUPPORT, CANDIDATES, K = 20, 64, 10
CASES = 200
"""Most tested shoppers of a category."""
_HISTORY = 20
_FEWEST_ITEMS, _FEWEST_SHOPPERS = 30, 150
"""Smaller clusters are left out."""


@dataclass(frozen=True)
class New:
    """A held-out category."""

    events: CategoryEvents
    adapt: IntArray
    """Events to adapt to."""
    asked: Events
    """The first event of each of the other shoppers, against all the category's products."""
    cases: list[Case]
    """Their purchases, parallel to ``asked``."""


@dataclass(frozen=True)
class World:
    """Categories of a seed."""

    embeddings: Tensor
    train: list[CategoryEvents]
    validation: list[New]
    new: list[New]


def read_shoppers(catalog: Catalog) -> Sequences:
    """Return the purchases of each shopper and their times, oldest first.

    Raises:
        TrainingError: it has no events.
    """
    if catalog.events is None:
        raise TrainingError(f"{catalog.folder} has no events to adapt to")
    frame = catalog.events
    rows = frame["item_id"].map(catalog.item_index).to_numpy(dtype=np.int64)
    times = frame["timestamp"].to_numpy(dtype=np.int64)
    groups = frame.groupby("user_id", sort=True).indices.values()
    places = [np.sort(group) for group in groups]
    return Sequences([rows[at] for at in places], [times[at] for at in places])


def make_world(embeddings: Tensor, category: IntArray, shoppers: Sequences, seed: int) -> World:
    """Return held-out and training categories; see the protocol of the task ``maml``."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(_usable(category, shoppers))
    new, validation = order[:TEST], order[TEST : TEST + VALIDATION]
    train = order[TEST + VALIDATION :]
    known = np.isin(category, train)

    def events(inside: BoolArray) -> CategoryEvents:
        return category_events(shoppers, inside, known & ~inside, max_history=_HISTORY)

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


def _usable(category: IntArray, shoppers: Sequences) -> list[int]:
    """Return the categories with enough products and shoppers."""
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
    """Return the mean NDCG over the tested shoppers; all products of the category are ranked."""
    part = held.asked
    with torch.no_grad():
        scores = predict(part.history, part.mask, part.candidates).numpy()
    return ndcg_of_scores(scores, held)


def ndcg_of_scores(scores: FloatArray, held: New) -> float:
    """Return the mean NDCG@K of ``(cases, products)`` scores."""
    size = len(held.events.items)
    top = top_items(scores, K, tie_order(size))
    return float(ndcg(hits(top, held.cases, size), held.cases, K).mean())


def support_events(held: New, draw: int) -> IntArray:
    """Return indices of the events to adapt to, one per shopper."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(held.adapt)
    _, first = np.unique(held.events.shopper[order], return_index=True)
    return order[np.sort(first)[:SUPPORT]]


COMPARED = 20
"""Steps of the general model, whose NDCG is the target."""
INNER, DRAWS = 2, 2
TILT = 2.0
"""Tilt of the popularity in the tasks of meta-training."""
_QUERIES = 20
_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Learning rates of fine-tuning; the validation categories choose one."""


def ndcg_curve(
    world: World, categories: Sequence[New], maml: Maml, steps: Sequence[int]
) -> list[float]:
    """Return NDCG after each of ``steps``, averaged over categories and draws of 20 events."""
    found = []
    for held in categories:
        for draw in range(DRAWS):
            support = event_part(world.embeddings, held.events, support_events(held, draw), None)
            path = enumerate(maml.trajectory(support, max(steps)))
            found.append(
                [ndcg_after(held, partial(maml.predict, p)) for at, p in path if at in steps]
            )
    mean: list[float] = np.mean(found, axis=0).tolist()
    return mean


def general_model(world: World, scratch: CategoryScorer, run: Run) -> CategoryScorer:
    """Return a copy of ``scratch`` trained on the events of all training categories."""
    general = copy.deepcopy(scratch)
    joint = JointEvents(general)
    fit(
        "general",
        joint,
        _tasks(world).batches(tasks=8, steps=20),
        torch.optim.AdamW(joint.parameters(), lr=1e-3, weight_decay=0.01),
        run,
        epochs=10,
        validate=lambda: float(np.mean([ndcg_after(c, general) for c in world.validation])),
        patience=3,
    )
    return general


def tuned(world: World, model: CategoryScorer, *, steps: int) -> Maml:
    """Return gradient descent from ``model`` at the best rate after ``steps``."""

    def reached(rate: float) -> float:
        maml = Maml(model, event_loss, steps=steps, rate=rate)
        return ndcg_curve(world, world.validation, maml, (steps,))[0]

    return Maml(model, event_loss, steps=steps, rate=max(_RATES, key=reached))


def best_rates(world: World, model: CategoryScorer, steps: Sequence[int]) -> dict[int, Maml]:
    """Return gradient descent from ``model`` at the best rate for each number of steps."""
    runs = [Maml(model, event_loss, steps=max(steps), rate=rate) for rate in _RATES]
    curves = [ndcg_curve(world, world.validation, maml, steps) for maml in runs]
    return {step: runs[int(np.argmax([c[at] for c in curves]))] for at, step in enumerate(steps)}


def meta_trained(world: World, start: Maml, run: Run, *, first_order: bool) -> Maml:
    """Return MAML with learned rates, from a general model and its best rate for few steps."""
    maml = Maml(
        copy.deepcopy(start.model),
        event_loss,
        steps=INNER,
        rate=start.rate,
        first_order=first_order,
        learn_rates=True,
        every_step=True,
    )
    groups = [
        {"params": [*maml.model.parameters()], "lr": 3e-4},
        {"params": [maml.log_rates], "lr": 0.05},
    ]
    after = range(1, maml.steps + 1)
    fit(
        "maml-first" if first_order else "maml-second",
        maml,
        replace(_tasks(world), tilt=TILT).batches(tasks=4, steps=20),
        torch.optim.AdamW(groups, weight_decay=0.01),
        run,
        epochs=4,
        validate=lambda: float(np.mean(ndcg_curve(world, world.validation, maml, after))),
        patience=2,
    )
    return maml


def _tasks(world: World) -> EventTasks:
    return EventTasks(world.embeddings, world.train, SUPPORT, _QUERIES, CANDIDATES)


_SPEC = ScorerSpec(width=64, hidden=128, dropout=0.0)
_STEPS = (0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
_SHOWN = (0, 1, 2, 5, 10, 20, 50)

_GENERAL = "general model, fine-tuned"
_QUICK = f"general model, rate for {INNER} steps"
_BEST = "general model, best rate for each number of steps"
_GENERALS = (_GENERAL, _QUICK, _BEST)
_FIRST = "MAML, first order"
_SECOND = "MAML, second order"
_SCRATCH = "from scratch"
_POPULAR = "popularity in the 20 events"
_FEWER = f"steps to the general model's NDCG after {COMPARED}"


def run(context: TransferContext) -> TaskResult:
    """Measure NDCG over the steps of adapting to new categories."""
    catalog = context.catalog("retail")
    embeddings = F.normalize(context.backbone(catalog).table.text, dim=1)
    category = KMeans(CATEGORIES, n_init=4, random_state=0).fit_predict(embeddings.numpy())
    shoppers = read_shoppers(catalog)
    curves: dict[str, list[list[float]]] = {}
    rates: list[dict[str, float]] = []
    for seed in context.seeds:
        world = make_world(embeddings, category, shoppers, seed)
        measured, chosen = _measure(world, seed, context)
        rates.append(chosen)
        for method, curve in measured.items():
            curves.setdefault(method, []).append(curve)
            shown = ", ".join(f"{value:.4f}" for value in curve)
            context.console.print(f"maml, seed {seed}, {method}: {shown}", markup=False)
    figure = context.figures / "maml-steps.png"
    draw_lines(
        {"A new category from 20 events": _lines(curves)},
        figure,
        xlabel="gradient steps",
        ylabel=f"NDCG@{K}",
    )
    return TaskResult(
        task="maml",
        title="Adapting the scorer to a new category from 20 events",
        protocol=_PROTOCOL,
        rows=_rows(curves),
        goals=(Goal(_FEWER, -1.0, "plus", _FIRST),),
        notes=_notes(curves, rates),
        figures={f"NDCG@{K} over the gradient steps on 20 events of a new category": figure},
        percent=False,
        lower_is_better=(_FEWER,),
    )


_PROTOCOL = (
    f"retail has no types: its {CATEGORIES} categories are k-means clusters of the titles' "
    f"features (of the whole catalogue, no event is used). Each seed holds out {TEST} as new "
    f"and {VALIDATION} for validation; the others are learned from. A category's new "
    "event is a purchase in it, with what the shopper bought earlier in the categories that are "
    f"learned from. Of each new category, half of the shoppers give the {SUPPORT} events to "
    f"adapt to (one each, two draws), and up to {CASES} of the others are asked: all the "
    "category's products are ranked, what the shopper took there from then on is right."
)


def _popularity(categories: Sequence[New]) -> float:
    found = []
    for held in categories:
        for draw in range(DRAWS):
            taken = held.events.target[support_events(held, draw)]
            counts = np.bincount(taken, minlength=len(held.events.items)).astype(np.float32)
            found.append(ndcg_of_scores(np.tile(counts, (len(held.cases), 1)), held))
    return float(np.mean(found))


def _measure(
    world: World, seed: int, context: TransferContext
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return NDCG over ``_STEPS`` by method, and the chosen rates."""
    run = Run(seed, context.console, quiet=True)
    torch.manual_seed(seed)
    scratch = CategoryScorer(SiameseScorer(_SPEC, world.embeddings.shape[1]))
    general = general_model(world, scratch, run)
    from_scratch = tuned(world, scratch, steps=COMPARED)
    rates = best_rates(world, general, _STEPS)
    slow, quick = rates[COMPARED], rates[INNER]
    models = {
        _SCRATCH: from_scratch,
        _GENERAL: slow,
        _QUICK: quick,
        _FIRST: meta_trained(world, quick, run, first_order=True),
        _SECOND: meta_trained(world, quick, run, first_order=False),
    }
    curves = {name: ndcg_curve(world, world.new, m, _STEPS) for name, m in models.items()}
    descents = {id(m): ndcg_curve(world, world.new, m, _STEPS) for m in rates.values()}
    curves[_BEST] = [descents[id(rates[step])][at] for at, step in enumerate(_STEPS)]
    curves[_POPULAR] = [_popularity(world.new)] * len(_STEPS)
    chosen = {name: float(models[name].rate) for name in (_SCRATCH, _GENERAL, _QUICK)}
    return curves, chosen


def _steps_to(curve: Sequence[float], wanted: float) -> float:
    """Return the first of ``_STEPS`` that reaches ``wanted``, or the last one."""
    reached = [step for step, value in zip(_STEPS, curve, strict=True) if value >= wanted]
    return float(reached[0] if reached else _STEPS[-1])


def _rows(curves: Mapping[str, list[list[float]]]) -> list[Row]:
    rows = []
    for step in _SHOWN:
        at = _STEPS.index(step)
        for method, seeds in curves.items():
            values = [curve[at] for curve in seeds]
            baseline = method not in {_FIRST, _SECOND}
            rows.append(Row(f"NDCG@{K} after {step} steps", method, values, baseline=baseline))
    for method in (*_GENERALS, _FIRST, _SECOND, _SCRATCH):
        values = _steps_by_seed(curves, method)
        rows.append(Row(_FEWER, method, values, baseline=method in _GENERALS))
    return rows


def _steps_by_seed(curves: Mapping[str, list[list[float]]], method: str) -> list[float]:
    """Return the steps of ``method`` to the general model's NDCG after ``COMPARED``."""
    at = _STEPS.index(COMPARED)
    pairs = zip(curves[method], curves[_GENERAL], strict=True)
    return [_steps_to(curve, general[at]) for curve, general in pairs]


def _lines(curves: Mapping[str, list[list[float]]]) -> dict[str, Line]:
    return {
        method: Line(_STEPS, np.mean(seeds, axis=0).tolist(), np.std(seeds, axis=0).tolist())
        for method, seeds in curves.items()
    }


def _notes(
    curves: Mapping[str, list[list[float]]], rates: Sequence[Mapping[str, float]]
) -> list[str]:
    chosen = "; ".join(
        ", ".join(f"{method} {rate:g}" for method, rate in of_seed.items()) for of_seed in rates
    )
    by_seed = "; ".join(
        f"{method} {', '.join(f'{steps:g}' for steps in _steps_by_seed(curves, method))}"
        for method in (*_GENERALS, _FIRST, _SECOND)
    )
    return [
        f"For `{_FEWER}` fewer is better. A method that never reaches it counts as "
        f"{_STEPS[-1]}. The goal is at least one step fewer than the general model needs at its "
        "best rate; it is judged by the first order, the cheaper one.",
        f"Those steps by seed: {by_seed}.",
        f"`{_BEST}` takes at every number of steps the rate that validates best after exactly "
        "that many: what MAML needs fewer than that is its own.",
        "The general model is trained on the events of the learned categories alike. Its rate is "
        f"the best on the validation categories after {COMPARED} steps, and `{_QUICK}` has the one "
        f"that is best there after {INNER}. From that model and rate both kinds of MAML begin: "
        f"{INNER} inner steps with one learned rate for each tensor, the query loss after every "
        "step counts, and the epoch is the best on the validation categories after those steps.",
        f"The tasks of meta-training favour some products, others in each task (tilt {TILT:g}): "
        "the general model knows what is popular in the learned categories, and without that the "
        "support tells it nothing, so the learned rates shrink.",
        f"MAML is meta-trained for {INNER} steps: more steps on the same 20 events overfit, so "
        "stop there.",
        "Twenty events tell most by which products were taken: their bare popularity is listed, "
        "and the scorer reads it only through the products' features.",
        f"Rates of the plain fine-tuning, chosen on the validation categories, by seed: {chosen}.",
    ]
