"""Simulated shops with equal variants that are hard on statistics, and ordinary shoppers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from newshelf.store.records import UnitTotals

Floats = NDArray[np.float64]
VISITS = 6000
LOOK = 100
"""Visits between two looks."""
_CLICKING = (2, 18)
"""Beta distribution of the shoppers' click-through rates, with a mean of 10 %."""


@dataclass(frozen=True, eq=False)
class Visits:
    """Visits of one rollout in their order, ``(visits,)`` each."""

    unit: NDArray[np.int64]
    answers: Floats
    clicks: Floats
    purchases: Floats
    revenue: Floats
    before: Mapping[str, Floats] = field(default_factory=dict)
    """By unit: covariates."""


World = Callable[[np.random.Generator], Visits]


def _visits(random: np.random.Generator, unit: NDArray[np.int64], answers: Floats) -> Visits:
    """Return visits in which each shopper clicks at an own rate and buys now and then."""
    rate = random.beta(*_CLICKING, unit.max() + 1)[unit]
    bought = random.binomial(answers.astype(int), 0.02).astype(float)
    return Visits(
        unit=unit,
        answers=answers,
        clicks=random.binomial((10 * answers).astype(int), rate).astype(float),
        purchases=bought,
        revenue=bought * random.lognormal(3.0, 0.7, len(unit)),
    )


def heavy_tailed(random: np.random.Generator) -> Visits:
    """A few shoppers have hundreds of answers, most have one or two."""
    answers = np.ceil(random.lognormal(0.0, 1.5, VISITS))
    return _visits(random, np.arange(VISITS), answers)


def _spending(random: np.random.Generator, buyers: float, sigma: float) -> Visits:
    plain = _visits(random, np.arange(VISITS), np.ones(VISITS))
    bought = random.binomial(1, buyers, VISITS).astype(float)
    return replace(plain, purchases=bought, revenue=bought * random.lognormal(3.0, sigma, VISITS))


def skewed_spend(random: np.random.Generator) -> Visits:
    """One in twenty buys; a tenth of the buyers bring half of the revenue."""
    return _spending(random, 0.05, 1.3)


def few_buyers(random: np.random.Generator) -> Visits:
    """One in two hundred buys: the first looks have a handful of buyers in both variants."""
    return _spending(random, 0.005, 1.0)


def loyal_buyers(random: np.random.Generator) -> Visits:
    """A few shoppers bring most of the revenue, before the rollout and in it."""
    taste = random.lognormal(0.0, 2.0, VISITS)
    known = np.stack([np.ones(VISITS), random.binomial(1, 0.6, VISITS)])
    chance = np.minimum(0.05 * np.sqrt(taste), 1.0)
    buys = random.binomial(1, chance, (2, VISITS)) * known
    spent: Floats = buys * taste * random.lognormal(3, 1, (2, VISITS))
    plain = _visits(random, np.arange(VISITS), np.ones(VISITS))
    return replace(
        plain,
        purchases=(spent[0] > 0).astype(float),
        revenue=spent[0],
        before={"requests": 3 * known[1], "revenue": spent[1]},
    )


def returning(random: np.random.Generator) -> Visits:
    """The same shoppers come back, some of them daily, and new things bore them with time."""
    weights = random.pareto(1.5, VISITS // 5) + 0.05
    unit = random.choice(len(weights), VISITS, p=weights / weights.sum())
    plain = _visits(random, unit, np.ones(VISITS))
    before = _occurrence(unit)
    rate = random.beta(*_CLICKING, len(weights))[unit] * (0.5 + 1.5 * np.exp(-before / 5))
    return replace(plain, clicks=random.binomial(10, np.minimum(rate, 1)).astype(float))


def bursts(random: np.random.Generator) -> Visits:
    """Shoppers come in sessions of some twenty visits, each with a mood; on some days, a sale."""
    length = random.geometric(0.05, VISITS)
    shoppers = random.integers(0, VISITS // 10, VISITS)
    session = np.repeat(np.arange(VISITS), length)[:VISITS]
    unit = shoppers[session]
    plain = _visits(random, unit, np.ones(VISITS))
    mood = random.beta(0.5, 4.5, VISITS)[session]
    sale = random.choice([0.5, 1.0, 3.0], VISITS // 500)[np.arange(VISITS) // 500]
    return replace(plain, clicks=random.binomial(10, np.minimum(mood * sale, 1)).astype(float))


def robots(random: np.random.Generator) -> Visits:
    """One in a thousand units asks thousands of times; half of these click on everything."""
    plain = heavy_tailed(random)
    robot = random.binomial(1, 0.001, VISITS).astype(bool)
    answers = np.where(robot, random.integers(1_000, 50_000, VISITS), plain.answers)
    eager = robot & (random.random(VISITS) < 1 / 2)
    clicks = np.where(robot, 0.0, plain.clicks)
    return replace(plain, answers=answers, clicks=np.where(eager, 10 * answers, clicks))


def _occurrence(unit: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of earlier visits of the same unit: 0, 1, 2, …"""
    order = np.argsort(unit, kind="stable")
    ordered = unit[order]
    first = np.searchsorted(ordered, ordered)
    found = np.empty_like(unit)
    found[order] = np.arange(len(unit)) - first
    return found


WORLDS: Mapping[str, tuple[str, str, World]] = {
    "heavy-tailed activity": ("ctr", "1.0 %", heavy_tailed),
    "skewed spend, 5 % buy": ("revenue_per_unit", "0.0 %", skewed_spend),
    "few buyers, 0.5 %": ("revenue_per_unit", "0.0 %", few_buyers),
    "loyal buyers, with CUPED": ("revenue_per_unit", "0.0 %; 0.5 % raise", loyal_buyers),
    "returning effects": ("ctr", "0.0 %", returning),
    "bursts": ("ctr", "0.0 %", bursts),
    "robots": ("ctr", "39 %", robots),
}
"""Name → success metric, false decisions of the earlier code, and shop."""


def looks(visits: Visits, random: np.random.Generator) -> Iterator[dict[str, UnitTotals]]:
    """Yield the totals after each ``LOOK`` visits; a coin assigns units."""
    number = int(visits.unit.max()) + 1
    is_challenger = random.random(number) < 1 / 2
    names = ("answers", "clicks", "purchases", "revenue")
    sums = np.zeros((len(names), number))
    for end in range(LOOK, len(visits.unit) + 1, LOOK):
        part = slice(end - LOOK, end)
        for place, name in enumerate(names):
            done = getattr(visits, name)[part]
            sums[place] += np.bincount(visits.unit[part], weights=done, minlength=number)
        seen = sums[0] > 0
        yield {
            side: _totals(sums[:, chosen], {name: x[chosen] for name, x in visits.before.items()})
            for side, chosen in (
                ("control", seen & ~is_challenger),
                ("challenger", seen & is_challenger),
            )
        }


def shoppers(random: np.random.Generator, units: int, ctr: float) -> UnitTotals:
    """Return ordinary shoppers: about six answers, clicks, an order after one in twenty."""
    answers = random.poisson(5, units) + 1.0
    clicks = random.binomial((10 * answers).astype(int), ctr).astype(float)
    bought = random.binomial(clicks.astype(int), 0.05).astype(float)
    return _totals(np.array([answers, clicks, bought, bought * random.lognormal(3, 1, units)]), {})


def _totals(sums: Floats, before: Mapping[str, Floats]) -> UnitTotals:
    answers, clicks, purchases, revenue = sums
    clicked = np.minimum(clicks, answers)
    return UnitTotals(
        requests=answers,
        shown=10 * answers,
        clicks=clicks,
        purchases=purchases,
        revenue=revenue,
        ndcg=0.6 * clicked,
        ndcg_requests=clicked,
        before=before,
    )
