"""Coverage and diversity, against naive draws and textbook values."""

import math
from itertools import combinations

import numpy as np
import pytest

from newshelf.rollout.analysis import analyse, catalog_exposure, effective_items, rarefied_items
from tests.unit.rollout.conftest import challenger, observation, plan

SIGNALS = [
    {"metric": "coverage", "least_of_control": 0.7, "min_shown": 100},
    {"metric": "diversity", "least_of_control": 0.7, "min_shown": 100},
]


def test_rarefaction_is_the_mean_over_all_samples() -> None:
    counts = [4, 2, 1]
    deck = [item for item, count in enumerate(counts) for _ in range(count)]
    for size in range(1, len(deck) + 1):
        naive = np.mean([len(set(hand)) for hand in combinations(deck, size)])
        assert rarefied_items(np.array(counts, float), size) == pytest.approx(naive)


def test_effective_items() -> None:
    assert effective_items(np.full(8, 3.0)) == pytest.approx(8)
    half = effective_items(np.array([2.0, 1.0, 1.0]))
    assert half == pytest.approx(math.exp(1.5 * math.log(2)))


def test_products_never_shown_do_not_count() -> None:
    assert catalog_exposure("coverage", {"a": 3, "b": 0, "c": 3}, 6) == pytest.approx(2)


def test_more_answers_are_not_more_coverage() -> None:
    """The same shelves, asked ten times as often."""
    random = np.random.default_rng(1)
    shelf = random.pareto(1.0, 2000)
    small, large = (random.multinomial(n, shelf / shelf.sum()) for n in (2000, 20_000))
    few, many = (
        catalog_exposure("coverage", {str(item): int(n) for item, n in enumerate(counts)}, 2000)
        for counts in (small, large)
    )
    assert many == pytest.approx(few, rel=0.05)
    assert (large > 0).sum() > 2 * (small > 0).sum()


def raised(**changes: object) -> list[str]:
    seen = observation(health=challenger(**changes))
    analysis = analyse(plan(signals=SIGNALS), seen)
    return [one.metric for one in analysis.signals if one.raised]


def test_a_ranker_that_went_for_hits_raises_diversity() -> None:
    hits = {f"item-{number}": 5 for number in range(49)} | {"hit": 1800}
    assert raised(items=hits) == ["diversity"]


def test_a_ranker_with_fewer_products_raises_both() -> None:
    assert raised(items={f"item-{number}": 100 for number in range(20)}) == [
        "coverage",
        "diversity",
    ]


def test_equal_variants_and_a_handful_of_products_raise_nothing() -> None:
    assert raised() == []
    assert raised(items={"a": 50}) == []
