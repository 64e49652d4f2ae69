"""Whom an item is like, beside a loop over all pairs."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from newshelf.nn import blend as neighbours
from newshelf.nn.blend import NEAREST, content_neighbours, content_signal, nearest_shares


def unit(rows: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator), dim=1)


def naive_shares(row: np.ndarray, among: dict[int, np.ndarray]) -> dict[int, float]:
    cosines = {item: float(row @ vector) for item, vector in among.items()}
    nearest = sorted(cosines, key=lambda item: -cosines[item])[:NEAREST]
    powers = {item: math.exp(cosines[item] / 0.05) for item in nearest}
    return {item: power / sum(powers.values()) for item, power in powers.items()}


@pytest.mark.parametrize("block", [7, 2048])
@pytest.mark.parametrize("count", [2, 5, NEAREST, NEAREST + 1, 45])
def test_neighbours_are_those_of_a_loop(count, block, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    vectors = unit(count)
    found = content_neighbours(vectors.numpy()).toarray()
    rows = vectors.numpy()
    for item in range(count):
        others = {other: rows[other] for other in range(count) if other != item}
        expected = naive_shares(rows[item], others)
        assert set(np.flatnonzero(found[item])) == set(expected)
        for other, share in expected.items():
            assert found[item, other] == pytest.approx(share, rel=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert found.dtype == np.float32


def test_equal_items_are_each_others_neighbours_and_not_their_own():
    vectors = unit(30)
    vectors[7] = vectors[3]
    found = content_neighbours(vectors.numpy()).toarray()
    assert (np.diag(found) == 0).all()
    assert found[3].argmax() == 7
    assert found[7].argmax() == 3


@pytest.mark.parametrize("count", [0, 1])
def test_an_item_alone_has_no_neighbour(count):
    found = content_neighbours(unit(count).numpy())
    assert found.shape == (count, count)
    assert found.nnz == 0


def test_a_product_from_outside_is_compared_with_every_item():
    vectors, asked = unit(40).numpy(), unit(3, seed=1).numpy()
    asked[1] = vectors[4]
    items, shares = nearest_shares(asked, vectors)
    assert items.shape == shares.shape == (3, NEAREST)
    for row, (places, parts) in enumerate(zip(items, shares, strict=True)):
        expected = naive_shares(asked[row], dict(enumerate(vectors)))
        assert dict(zip(places.tolist(), parts.tolist(), strict=True)) == pytest.approx(
            expected, rel=1e-4
        )
    assert items[1, shares[1].argmax()] == 4


def test_with_one_item_indexed_all_of_a_product_is_its():
    items, shares = nearest_shares(unit(2, seed=1).numpy(), unit(1).numpy())
    assert items.tolist() == [[0], [0]]
    assert shares.tolist() == [[1], [1]]


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_likeness_to_the_history_is_the_formula(temperature):
    cosines = (unit(4).numpy() @ unit(9, seed=1).numpy().T).astype(np.float32)
    found = content_signal(cosines, temperature)
    for candidate in range(9):
        total = sum(math.exp((float(cosine) - 1) / temperature) for cosine in cosines[:, candidate])
        assert found[candidate] == pytest.approx(math.log(total), rel=1e-4)
    assert found.dtype == np.float32
