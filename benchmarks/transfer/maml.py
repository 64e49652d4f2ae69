"""A new category's first twenty events: MAML's start beside the general model's."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from benchmarks.methods.meta.event_tasks import CategoryScorer
from benchmarks.transfer.category_methods import (
    COMPARED,
    DRAWS,
    INNER,
    TILT,
    best_rates,
    general_model,
    meta_trained,
    ndcg_curve,
    tuned,
)
from benchmarks.transfer.context import Context
from benchmarks.transfer.new_category import (
    CASES,
    CATEGORIES,
    SUPPORT,
    TEST,
    VALIDATION,
    K,
    New,
    World,
    make_world,
    ndcg_of_scores,
    read_shoppers,
    support_events,
)
from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.evaluation.figures.lines import Line, draw_lines
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.transfer.run import Run

__all__ = ["run"]

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


def run(context: Context) -> TaskResult:
    """Measure NDCG over the steps of adapting to categories never seen."""
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
    world: World, seed: int, context: Context
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """NDCG over ``_STEPS`` by method, and the rates that were chosen."""
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
    """The first of ``_STEPS`` that reaches ``wanted``; the last one where none does."""
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
    """Steps of ``method`` to the NDCG of the general model after ``COMPARED``."""
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
