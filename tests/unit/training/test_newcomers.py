"""What shoppers count who are new to the shop when they first come to a product."""

from collections import defaultdict

import numpy as np

from newshelf.catalog.interactions import Sequences
from newshelf.training.signals import bound_newcomers

DAY_S = 86_400
Row = tuple[int, int, int]
"""Shopper, product and day."""

KNOWN = [(shopper, 0, 0) for shopper in range(8)]
"""Eight shoppers come to product 0 on the first day; nobody is known then."""
FAIR = [((item + n) % 8, item, 30) for item in range(1, 41) for n in range(4)] + [
    (100 + 2 * item + n, item, 30) for item in range(1, 41) for n in range(2)
]
"""To each product come four known shoppers and two newcomers."""


def bounded(
    rows: list[Row], days: float = 7, weights: float | None = None
) -> dict[Row, float] | None:
    """Return weights by row, relative to that of the first."""
    sequences = defaultdict[int, list[tuple[int, int]]](list)
    for shopper, item, day in sorted(rows, key=lambda row: row[2]):
        sequences[shopper].append((item, day))
    items = [np.array([item for item, _ in found]) for found in sequences.values()]
    stamps = [np.array([day for _, day in found]) * DAY_S for found in sequences.values()]
    given = weights and [np.full(len(one), weights, dtype=np.float32) for one in items]
    found = bound_newcomers(Sequences(items, stamps, given or None), days).weights
    if found is None:
        return None
    assert np.isclose(np.concatenate(found).mean(), 1)
    order = [(shopper, *event) for shopper, events in sequences.items() for event in events]
    values = dict(zip(order, np.concatenate(found).tolist(), strict=True))
    return {row: value / values[rows[0]] for row, value in values.items()}


def test_newcomers_count_their_share_of_a_product():
    assert bounded(KNOWN + FAIR) is None
    crowd = [(900 + shopper, 1, 30) for shopper in range(6)]
    weights = bounded(KNOWN + FAIR + crowd)
    usual = (4 + 0.5) * 86 / 160
    limit = usual + usual**0.5
    for row in [*crowd, (102, 1, 30), (103, 1, 30)]:
        assert np.isclose(weights.pop(row), limit / 8)
    assert np.allclose(list(weights.values()), 1)


def test_a_hundred_robots_count_no_more_than_ten():
    few, many = (
        sum(weight for (shopper, *_), weight in bounded(KNOWN + FAIR + crowd).items()
            if shopper >= 900)
        for crowd in ([(900 + n, 1, 30) for n in range(count)] for count in (10, 100))
    )  # fmt: skip
    # The shop has more newcomers now, and so more of them are usual.
    assert many < 2.5 * few


def test_later_interactions_of_a_newcomer_with_the_product_weigh_as_the_first():
    crowd = [(900 + shopper, 1, 30) for shopper in range(6)]
    weights = bounded([*KNOWN, *FAIR, *crowd, (900, 1, 50), (900, 2, 50)])
    assert np.isclose(weights[900, 1, 50], weights[900, 1, 30])
    assert weights[900, 1, 50] < weights[900, 2, 50]


def test_given_weights_are_multiplied():
    crowd = [(900 + shopper, 1, 30) for shopper in range(6)]
    plain, doubled = (bounded(KNOWN + FAIR + crowd, weights=of) for of in (None, 2.0))
    assert plain == doubled


def test_nothing_is_bounded_without_newcomers_or_without_others():
    crowd = [(900 + shopper, 1, 30) for shopper in range(6)]
    assert bounded(KNOWN + FAIR + crowd, days=0) is None
    assert bounded([(shopper, shopper % 3, shopper) for shopper in range(12)], days=100) is None
    for data in (Sequences([np.array([1, 2])]), Sequences([], [])):
        assert bound_newcomers(data, 7) is data
