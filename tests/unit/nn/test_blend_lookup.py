"""What is looked up for one history is what the blend's matrices give for all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from newshelf.nn import blend_lookup
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


def by_the_matrices(
    blend: Blend, history: np.ndarray, outside: np.ndarray | None = None
) -> np.ndarray:
    """Prior plus weighted links of all items, or of those outside that have shares in them."""
    b, k = blend.links.toarray(), blend.neighbours.toarray()
    direct, likewise = history @ b, history @ k @ b
    shares = k if outside is None else outside
    sums = {"direct": shares @ direct, "similar": shares @ direct, "likewise": shares @ likewise}
    if outside is None:
        linked = blend.links.indices
        sums["direct"][linked] = direct[linked]
    total = blend.prior if outside is None else outside @ blend.prior
    for name, summed in sums.items():
        total = total + blend.spec.weights[name] * np.log(blend.spec.floor + summed.clip(min=0))
    return total


@QUICK
@given(sizes, densities, seeds, dense, st.data())
def test_items_of_the_index(size, density, seed, dense_numbers, data):
    blend = drawn_blend(size, density, seed)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    history = np.zeros(size, dtype=np.float32)
    history[rows] = 1
    expected = by_the_matrices(blend, history)
    lookup = BlendLookup(blend, dense_numbers=dense_numbers)
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
    lookup = BlendLookup(blend, dense_numbers=dense_numbers)
    sums = lookup.sums(rows, [(nearest, shares)])
    np.testing.assert_allclose(
        lookup.everywhere(sums), by_the_matrices(blend, history), rtol=1e-3, atol=1e-3
    )
    spread = np.zeros((2, size), dtype=np.float32)
    np.put_along_axis(spread, nearest, shares, axis=1)
    expected = by_the_matrices(blend, history, spread)
    found = lookup.outside(sums, lookup.newcomers(nearest, shares))
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
    lookup = BlendLookup(blend, dense_numbers=dense_numbers)
    found = lookup.everywhere(lookup.sums(np.array([0])))
    np.testing.assert_allclose(found, [np.log(0.5 + spec.floor)] * 3, rtol=1e-4)


def naive_best(scores: np.ndarray, allowed: np.ndarray, limit: int) -> list[float]:
    return sorted(scores[allowed].tolist(), reverse=True)[:limit]


masks = st.sampled_from([1.0, 0.5, 0.1, 0.0])


@QUICK
@given(sizes, densities, seeds, masks, st.integers(1, 12), st.data())
def test_few_items_are_all_scored_for_the_best(size, density, seed, share, limit, data):
    blend = drawn_blend(size, density, seed)
    lookup = BlendLookup(blend, BlendLookup(blend).lists())
    allowed = np.random.default_rng(seed).random(size) < share
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    sums = lookup.sums(rows)
    expected = lookup.everywhere(sums)
    best, scores = lookup.best(sums, allowed, limit)
    assert best.tolist() == sorted({*best.tolist()})
    assert allowed[best].all()
    np.testing.assert_allclose(scores, expected[best], rtol=1e-3, atol=1e-3)
    found = sorted(scores.tolist(), reverse=True)
    np.testing.assert_allclose(found, naive_best(expected, allowed, limit), rtol=1e-3, atol=1e-3)


@QUICK
@given(sizes, densities, seeds, masks, st.data())
def test_stored_places_change_no_score(size, density, seed, share, data):
    blend = drawn_blend(size, density, seed)
    plain = BlendLookup(blend)
    stored = BlendLookup(blend, plain.lists())
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    everything = np.arange(size)
    np.testing.assert_array_equal(
        plain.unpersonal(plain.sums(rows), everything),
        stored.unpersonal(stored.sums(rows), everything),
    )


def shop(items: int = 3_000, kinds: int = 30) -> tuple[Blend, np.ndarray]:
    """Neighbours within kinds; every tenth item is linked, mostly within its kind; and kinds."""
    rng = np.random.default_rng(4)
    kind = rng.integers(kinds, size=items)
    of_kind = [np.flatnonzero(kind == number) for number in range(kinds)]
    neighbours = sparse.lil_array((items, items), dtype=np.float32)
    links = sparse.lil_array((items, items), dtype=np.float32)
    for row in range(items):
        near = rng.choice(of_kind[kind[row]], 8, replace=False)
        neighbours[row, near] = rng.dirichlet(np.ones(8))
    linked = np.arange(0, items, 10)
    for row in linked:
        near = linked[kind[linked] == kind[row]]
        links[row, near] = rng.lognormal(-3, 1, len(near))
        links[row, rng.choice(linked, 3)] = 0.01
    spec = BlendSpec(weights=dict(zip(LINKS, (0.4, 0.2, 0.3), strict=True)))
    prior = rng.standard_normal(items).astype(np.float32)
    return Blend(spec, links.tocsr(), neighbours.tocsr(), prior), kind


@pytest.mark.parametrize("share", [1.0, 0.3, 0.05])
def test_the_best_of_many_items_are_nearly_all_found(monkeypatch, share):
    monkeypatch.setattr(blend_lookup, "_FEW", 100)
    monkeypatch.setattr(blend_lookup, "_LOOKED_AT", 1_000)
    blend, kind = shop()
    lookup = BlendLookup(blend, BlendLookup(blend).lists())
    rng = np.random.default_rng(5)
    allowed = rng.random(len(blend)) < share
    found = wanted = 0
    for _ in range(20):
        kinds = rng.choice(30, 2, replace=False)
        rows = np.sort(rng.choice(np.flatnonzero(np.isin(kind, kinds)), 5, replace=False))
        sums = lookup.sums(rows)
        expected = np.where(allowed, lookup.everywhere(sums), -np.inf)
        true = np.argsort(-expected)[:40]
        best, scores = lookup.best(sums, allowed, 40)
        assert allowed[best].all()
        assert len(best) == 40
        np.testing.assert_allclose(scores, expected[best], rtol=1e-3, atol=1e-3)
        found += len(np.intersect1d(best, true))
        wanted += len(true)
    assert found >= 0.97 * wanted
