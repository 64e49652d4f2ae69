"""What is looked up for one history is what the blend's matrices give for all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from newshelf.nn.blend import LINKS, Blend
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.spec import BlendSpec

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)
sizes = st.integers(1, 40)
# With 0, no item has a link or a neighbour at all.
densities = st.sampled_from([0.0, 0.05, 0.3, 1.0])
dense = st.sampled_from([0, 10**9])


def drawn_blend(size: int, density: float, seed: int) -> Blend:
    """Any links and shares; rows and columns without one, and of every length."""
    rng = np.random.default_rng(seed)
    links = (rng.random((size, size)) < density) * rng.normal(0, 1, (size, size))
    links[:, rng.random(size) < 0.3] = 0
    shares = (rng.random((size, size)) < density) * rng.random((size, size))
    return Blend(
        BlendSpec(weights=dict(zip(LINKS, rng.normal(0, 1, 3).tolist(), strict=True))),
        sparse.csr_array(links.astype(np.float32)),
        sparse.csr_array(shares.astype(np.float32)),
        rng.standard_normal(size).astype(np.float32),
    )


def by_the_matrices(blend: Blend, history: np.ndarray) -> np.ndarray:
    linked = blend.linked(sparse.csr_array(history[None]))
    return blend.unpersonal(blend.links_signals(linked), blend.prior)[0]


@QUICK
@given(sizes, densities, seeds, dense, st.data())
def test_items_of_the_index(size, density, seed, dense_numbers, data):
    blend = drawn_blend(size, density, seed)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    history = np.zeros(size, dtype=np.float32)
    history[rows] = 1
    expected = by_the_matrices(blend, history)
    lookup = BlendLookup(blend, dense_numbers)
    sums = lookup.sums(rows)
    np.testing.assert_allclose(lookup.everywhere(sums), expected, rtol=1e-3, atol=1e-3)
    some = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=9)), dtype=np.int64)
    found = lookup.unpersonal(sums, some)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[some], rtol=1e-3, atol=1e-3)


@QUICK
@given(sizes, densities, seeds, dense, st.data())
def test_products_from_outside(size, density, seed, dense_numbers, data):
    """In the history, where an item that is met itself counts 1; and to be recommended."""
    blend = drawn_blend(size, density, seed)
    rng = np.random.default_rng(seed)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1)))), dtype=np.int64)
    nearest = np.stack([rng.permutation(size)[: min(3, size)] for _ in range(2)])
    shares = rng.dirichlet(np.ones(nearest.shape[1]), 2).astype(np.float32)
    history = np.zeros(size, dtype=np.float32)
    np.add.at(history, nearest, shares)
    history[rows] = 1
    lookup = BlendLookup(blend, dense_numbers)
    sums = lookup.sums(rows, [(nearest, shares)])
    np.testing.assert_allclose(
        lookup.everywhere(sums), by_the_matrices(blend, history), rtol=1e-3, atol=1e-3
    )
    spread = np.zeros((2, size), dtype=np.float32)
    np.put_along_axis(spread, nearest, shares, axis=1)
    linked = blend.linked(sparse.csr_array(history[None]))
    signals = blend.unseen_signals(linked, sparse.csr_array(spread))
    expected = blend.unpersonal(signals, spread @ blend.prior)[0]
    found = lookup.outside(sums, nearest, shares)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dense_numbers", [0, 10**9])
def test_an_item_without_a_column_is_linked_as_its_neighbours_are(dense_numbers):
    """0 leads to 1; nothing leads to 0 and 2, which are like 1."""
    links = np.zeros((3, 3), dtype=np.float32)
    links[0, 1] = 0.5
    shares = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    spec = BlendSpec(weights={"direct": 1.0, "similar": 0.0, "likewise": 0.0})
    blend = Blend(
        spec, sparse.csr_array(links), sparse.csr_array(shares), np.zeros(3, dtype=np.float32)
    )
    lookup = BlendLookup(blend, dense_numbers)
    found = lookup.everywhere(lookup.sums(np.array([0])))
    np.testing.assert_allclose(found, [np.log(0.5 + spec.floor)] * 3, rtol=1e-4)
