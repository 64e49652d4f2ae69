"""How much is asked for what, beside counting by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from newshelf.catalog.interactions import Sequences
from newshelf.nn.blend import content_neighbours
from newshelf.training.signals import popularity_features

DAY = 86_400
ITEMS = 12
RNG = np.random.default_rng(9)
# Items 10 and 11 are new; a shopper may take one thing several times.
SEQUENCES = [RNG.integers(0, 10, 1 + at % 6) for at in range(25)]
STAMPS = [np.sort(RNG.integers(0, 200 * DAY, len(s))) for s in SEQUENCES]
NEIGHBOURS = content_neighbours(
    F.normalize(torch.randn(ITEMS, 4, generator=torch.Generator().manual_seed(1)), dim=1).numpy()
)
NOW = max(int(stamps[-1]) for stamps in STAMPS)


def shoppers(item: int, since: float) -> int:
    return sum(
        any(i == item and t > since for i, t in zip(sequence, stamps, strict=True))
        for sequence, stamps in zip(SEQUENCES, STAMPS, strict=True)
    )


def alike(item: int, counts: list[int]) -> float:
    shares = NEIGHBOURS.toarray()[item]
    return math.log1p(sum(float(shares[other]) * counts[other] for other in range(ITEMS)))


def test_with_time_windows_are_counted():
    features = popularity_features(Sequences(SEQUENCES, STAMPS), NEIGHBOURS)
    assert set(features) == {
        "new",
        "popularity_14d",
        "popularity_30d",
        "popularity_90d",
        "popularity_alike",
        "age",
    }
    monthly = [shoppers(item, NOW - 30 * DAY) for item in range(ITEMS)]
    for item in range(ITEMS):
        for days in (14, 30, 90):
            expected = math.log1p(shoppers(item, NOW - days * DAY))
            assert features[f"popularity_{days}d"][item] == pytest.approx(expected, abs=1e-6)
        firsts = [
            int(stamps[sequence == item][0])
            for sequence, stamps in zip(SEQUENCES, STAMPS, strict=True)
            if item in sequence
        ]
        age = math.log1p((NOW - min(firsts)) / DAY) if firsts else 0
        assert features["age"][item] == pytest.approx(age, abs=1e-5)
        assert features["popularity_alike"][item] == pytest.approx(alike(item, monthly), abs=1e-5)
    assert 0 < sum(monthly) < sum(shoppers(item, -1) for item in range(ITEMS))


def test_without_time_all_baskets_are_counted():
    features = popularity_features(Sequences(SEQUENCES), NEIGHBOURS)
    assert set(features) == {"new", "popularity", "popularity_alike"}
    counts = [shoppers(item, -1) for item in range(ITEMS)]
    for item in range(ITEMS):
        assert features["popularity"][item] == pytest.approx(math.log1p(counts[item]), abs=1e-6)
        assert features["popularity_alike"][item] == pytest.approx(alike(item, counts), abs=1e-5)


@pytest.mark.parametrize("stamps", [STAMPS, None])
def test_a_new_item_has_nothing_of_its_own(stamps):
    features = popularity_features(Sequences(SEQUENCES, stamps), NEIGHBOURS)
    assert np.flatnonzero(features["new"]).tolist() == [10, 11]
    for name, values in features.items():
        assert values.shape == (ITEMS,)
        assert values.dtype == np.float32
        if name not in {"new", "popularity_alike"}:
            assert not values[10:].any()
    assert (features["popularity_alike"][10:] > 0).all()


def test_without_any_sequence_all_is_new():
    features = popularity_features(Sequences([]), NEIGHBOURS)
    assert features["new"].all()
    assert not features["popularity"].any()
