"""Simulated weeks with a new category each, and worse candidates at the gate.

Products are unit vectors around their category's centre, shoppers like some categories. Every week
a category opens that looks partly like an earlier one, and 40 % of what is taken is of the two
newest. One shop never retrains, the other does as ``./run retrain``: from the served scorer, behind
the gate on the newest two days.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.records import Values
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.transfer.command import TransferContext
from export.gate import carried_over, compare_on, judge
from newshelf.catalog.interactions import Interactions, Sequences
from newshelf.config import BlendSettings, RetrainSettings, ScorerSettings
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.splits import newest_split
from newshelf.evaluation.types import Case, Split
from newshelf.report.plots import Line, draw_lines
from newshelf.training.ranking import BlendRanker, Ranking, train_ranking
from newshelf.training.run import Run

_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_OLD, _PRODUCTS, _WIDTH = 6, 40, 64
"""Categories at the beginning, products of each, width of the vectors."""
_SHOPPERS, _SHARE = 1200, 0.4
"""Shoppers, and the share of what they take that is of new categories."""
_WEEKS = 4
_ALIKE = 0.6
"""What a new category's centre has of an earlier one's."""
_SETTINGS = ScorerSettings(
    width=32, epochs=4, max_steps=80, batch_size=128, blend=BlendSettings(max_cases=300)
)
_GATE = RetrainSettings()
_CANDIDATES, _DRAWS, _DRAWN = 20, 10, 200
"""Worse candidates, and for each the draws of cases and their number."""
_NEVER, _AGAIN = "never retrained", "retrained"


@dataclass(frozen=True)
class World:
    """Products and what shoppers take, ``weeks`` after the first four."""

    vectors: torch.Tensor
    """``(N, 64)`` float32 of unit length."""
    category: np.ndarray[Any, Any]
    """``(N,)``."""
    sequences: list[np.ndarray[Any, Any]]
    times: list[np.ndarray[Any, Any]]

    def until(self, end_s: float) -> Interactions:
        """Return what happened before a moment."""
        pairs = [
            (items[at < end_s], at[at < end_s])
            for items, at in zip(self.sequences, self.times, strict=True)
        ]
        kept = [(items, at) for items, at in pairs if len(items)]
        count = len(self.vectors)
        return Interactions(
            [one for one, _ in kept],
            [at for _, at in kept],
            n_items=count,
            groups=np.arange(len(kept)),
        )

    def stocked(self, week: int) -> torch.Tensor:
        """Return the vectors of the products of the categories that are open."""
        return self.vectors[: (_OLD + week) * _PRODUCTS]


def make_world(weeks: int, seed: int) -> World:
    """Draw a world of four weeks and some more, each with a new category."""
    rng = np.random.default_rng(seed)
    count = _OLD + weeks
    centres = rng.normal(size=(count, _WIDTH))
    centres[_OLD:] = _ALIKE * centres[rng.integers(_OLD, size=weeks)] + 0.8 * centres[_OLD:]
    category = np.repeat(np.arange(count), _PRODUCTS)
    vectors = centres[category] + 0.8 * rng.normal(size=(len(category), _WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Within a category, products that are bought together do not look alike.
    style = rng.integers(4, size=len(category))
    appeal = rng.gamma(0.5, size=len(category))
    sequences, times = [], []
    for _ in range(_SHOPPERS):
        likes, own_style = rng.choice(_OLD, 2, replace=False), rng.integers(4)
        at = np.sort(rng.uniform(0, (4 + weeks) * _WEEK_S, rng.poisson(5 * (4 + weeks)) + 2))
        items = []
        for moment in at:
            opened = int(moment / _WEEK_S) - 3
            new = opened > 0 and rng.random() < _SHARE
            # One of the two newest categories.
            newest = _OLD + max(opened - 1 - int(rng.integers(2)), 0)
            chosen = newest if new else rng.choice(likes)
            among = np.flatnonzero(category == chosen)
            weight = appeal[among] * np.where(style[among] == own_style, 8, 1)
            items.append(rng.choice(among, p=weight / weight.sum()))
        sequences.append(np.array(items, dtype=np.int64))
        times.append(at.astype(np.int64))
    return World(torch.from_numpy(vectors).float(), category, sequences, times)


def train(world: World, seen: Sequences, week: int, start: Ranking | None, seed: int) -> Ranking:
    """Train scorer and signals on what happened, on the stocked products."""
    run = Run(seed=seed, console=Console(quiet=True), quiet=True)
    scorer = None if start is None else start.scorer
    vectors = world.stocked(week)
    return train_ranking(vectors, seen, _SETTINGS, run, start=scorer)


def ranker(world: World, ranking: Ranking, trained: int, week: int, name: str) -> BlendRanker:
    """Return a version's ranking of the products of a later week."""
    vectors, known = world.stocked(week), world.stocked(trained)
    blend = ranking.blend
    if blend is not None:
        rows = np.where(np.arange(len(vectors)) < len(known), np.arange(len(vectors)), -1)
        blend = carried_over(blend, rows, vectors, known)
    return BlendRanker(Ranking(ranking.scorer, blend, []), vectors, name)


def newest_products(world: World, week: int) -> Split:
    """Return the cases of the week after ``week``: products of the categories opened since."""
    start = (4 + week) * _WEEK_S
    count = (_OLD + week) * _PRODUCTS
    cases = []
    for items, at in zip(world.sequences, world.times, strict=True):
        past = items[at < start]
        now = items[(at >= start) & (at < start + _WEEK_S) & (items < count)]
        relevant = np.setdiff1d(now[now >= _OLD * _PRODUCTS], past)
        if len(past) and len(relevant):
            cases.append(Case(np.unique(past), relevant))
    return Split("new products", Sequences([]), cases, np.ones(count, dtype=np.bool_), "")


def simulate(weeks: int, seed: int) -> Values:
    """Return NDCG@10 of new products by week, never retrained and retrained, and the gate's."""
    world = make_world(weeks + 1, seed)
    first = train(world, world.until(4 * _WEEK_S), 0, None, seed)
    served, trained, seen_s = first, 0, 4 * _WEEK_S
    ndcg: Values = {_NEVER: [], _AGAIN: [], "passed": []}
    for week in range(1, weeks + 1):
        end = (4 + week) * _WEEK_S
        every = world.until(end)
        size = (_OLD + week) * _PRODUCTS
        every = replace(every, n_items=size)
        split = newest_split(every, seen_s, _GATE.model_copy(update={"min_cases": 30}), seed)
        candidate = train(world, split.train, week, served, seed + week)
        now = ranker(world, served, trained, week, "served")
        new = ranker(world, candidate, week, week, "candidate")
        passed, _ = judge(compare_on(split, now, new)[1], _GATE)
        if passed:
            served, trained, seen_s = train(world, every, week, served, seed + week), week, end
        cases = newest_products(world, week)
        for name, one, until in ((_NEVER, first, 0), (_AGAIN, served, trained)):
            metrics = evaluate(ranker(world, one, until, week, name), cases, (10,))
            ndcg[name].append(metrics.values["NDCG@10"])
        ndcg["passed"].append(bool(passed))
    return ndcg


def run(context: TransferContext) -> TaskResult:
    """Simulate the weeks once per seed."""
    torch.set_num_threads(1)
    seeds = []
    for seed in context.seeds:
        context.console.print(f"weeks, seed {seed}")
        seeds.append(context.measured("weeks", seed, partial(simulate, _WEEKS, seed)))
    weeks = range(1, _WEEKS + 1)
    ndcg = {name: np.array([seed[name] for seed in seeds]) for name in (_NEVER, _AGAIN)}
    plot = context.figures / "weeks.png"
    lines = {name: Line(weeks, of.mean(0), of.std(0)) for name, of in ndcg.items()}
    draw_lines({"": lines}, plot, xlabel="week", ylabel="NDCG@10 of new products")
    passed = sum(sum(seed["passed"]) for seed in seeds)
    return TaskResult(
        task="weeks",
        title="Weeks with a new category each",
        protocol=(
            f"{_OLD} categories of {_PRODUCTS} products, {_SHOPPERS} shoppers, four weeks of "
            f"history. Then a category opens every week, {_ALIKE:.0%} of whose centre is that of "
            f"an earlier one, and {_SHARE:.0%} of what is taken is of the two newest. One shop "
            "never retrains. The other retrains every week as `./run retrain` does, with the "
            f"default gate (`better`, {_GATE.gate_days:g} newest days, but from 30 cases), "
            "without a rollout. Measured on the new categories' products in the following week."
        ),
        rows=[
            Row(f"NDCG@10, week {week}", name, of[:, week - 1].tolist(), name == _NEVER)
            for week in weeks
            for name, of in ndcg.items()
        ],
        goals=[Goal(f"NDCG@10, week {_WEEKS}", 1.2, "times")],
        notes=[
            f"The gate let {passed} of {_WEEKS * len(seeds)} candidates pass. After a week in "
            "which it refuses, the products of that week stay as badly ranked as without "
            "retraining.",
        ],
        figures={"NDCG@10 of the new categories' products by week": plot},
        percent=False,
    )


def run_worse(context: TransferContext) -> TaskResult:
    """Compare worse candidates with the served version, once per seed."""
    torch.set_num_threads(1)
    count = _CANDIDATES * _DRAWS
    seeds = []
    for seed in context.seeds:
        context.console.print(f"worse candidates, seed {seed}")
        seeds.append(context.measured("worse", seed, partial(trials, seed)))
    measure = f"worse candidates promoted, of {count}"
    return TaskResult(
        task="worse",
        title="Worse candidates",
        protocol=(
            "Candidates that learned from a tenth of the shoppers are compared with a version "
            f"that learned from all: {_CANDIDATES} candidates, {_DRAWS} draws of {_DRAWN} cases "
            "of the newest two days each."
        ),
        rows=[Row(measure, f"gate {gate}", [seed[gate] for seed in seeds]) for gate in seeds[0]],
        goals=[Goal(measure, 0.0, method="gate better")],
        percent=False,
        lower_is_better=[measure],
    )


def trials(seed: int) -> Values:
    """Return how many candidates that learned from a tenth pass the gate, by gate."""
    world = make_world(1, seed)
    every = world.until(4 * _WEEK_S)
    split = newest_split(every, 0, _GATE.model_copy(update={"min_cases": 30}), seed)
    whole, stamps = split.train.sequences, split.train.timestamps or []
    every_product = np.ones(_OLD * _PRODUCTS, dtype=np.bool_)
    now = ranker(world, train(world, split.train, 0, None, seed), 0, 0, "served")
    passed, rng = dict.fromkeys(("better", "no-worse"), 0), np.random.default_rng(seed)
    for number in range(_CANDIDATES):
        few = rng.choice(len(whole), len(whole) // 10, replace=False)
        part = Sequences([whole[at] for at in few], [stamps[at] for at in few])
        new = ranker(world, train(world, part, 0, None, seed + number), 0, 0, "candidate")
        for _ in range(_DRAWS):
            drawn = rng.choice(len(split.cases), min(_DRAWN, len(split.cases)), replace=False)
            cases = [split.cases[at] for at in drawn]
            sample = Split("newest", split.train, cases, every_product, "")
            test = compare_on(sample, now, new)[1]
            for gate in passed:
                passed[gate] += int(judge(test, _GATE.model_copy(update={"gate": gate}))[0])
    return passed
