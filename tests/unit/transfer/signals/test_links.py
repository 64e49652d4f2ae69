"""What was taken together, beside the formulas computed densely and beside loops."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn import functional as F

from newshelf.nn.blend import Blend
from newshelf.nn.spec import BlendSpec
from newshelf.transfer.signals.cooccurrence import (
    Taken,
    _strongest,
    direct_links,
    smoothed_links,
)
from newshelf.transfer.signals.neighbours import content_neighbours

DAY = 86_400
ITEMS, NEW = 24, 4
# The last four items were never taken.
RNG = np.random.default_rng(5)
SEQUENCES = [RNG.permutation(ITEMS - NEW)[: 2 + at % 4].astype(np.int64) for at in range(30)]
NEIGHBOURS = content_neighbours(
    F.normalize(torch.randn(ITEMS, 5, generator=torch.Generator().manual_seed(2)), dim=1)
)


def taken(timestamps=None, half_life_days: float = 60, sequences=SEQUENCES) -> Taken:
    return Taken.of(sequences, timestamps, ITEMS, half_life_days)


def ease(incidence: np.ndarray, ridge: float) -> np.ndarray:
    gram = incidence.T @ incidence
    inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0)
    return weights


def dense_incidence() -> np.ndarray:
    incidence = np.zeros((len(SEQUENCES), ITEMS))
    for row, sequence in enumerate(SEQUENCES):
        incidence[row, sequence] = 1
    return incidence


def test_direct_links_are_ease_with_the_ridge_in_mean_weights():
    incidence = dense_incidence()[:, : ITEMS - NEW]
    mean = incidence.sum(axis=0).mean()
    links = direct_links(taken(), ridge=0.5, max_items=1000).toarray()
    np.testing.assert_allclose(
        links[: ITEMS - NEW, : ITEMS - NEW], ease(incidence, 0.5 * mean), atol=1e-5
    )
    assert not links[ITEMS - NEW :].any()
    assert not links[:, ITEMS - NEW :].any()


def test_older_entries_fade_by_half_each_half_life():
    sequences = [np.array([0, 1, 0]), np.array([2])]
    stamps = [np.array([0, 30 * DAY, 40 * DAY]), np.array([100 * DAY])]
    found = taken(stamps, 20, sequences)
    # Item 0 counts from when it was met last, 60 days before the end: three half-lives.
    expected = {(0, 0): 0.5**3, (0, 1): 0.5**3.5, (1, 2): 1.0}
    dense = found.weights.toarray()
    assert {place: dense[place] for place in expected} == pytest.approx(expected)
    assert found.weights.nnz == 3
    assert found.last.tolist() == [40 * DAY, 100 * DAY]


def test_faded_links_are_ease_of_the_roots_of_the_weights():
    stamps = [np.arange(len(s)) * 5 * DAY + 3 * DAY * at for at, s in enumerate(SEQUENCES)]
    found = taken(stamps, 30)
    roots = np.sqrt(found.weights.toarray())[:, : ITEMS - NEW]
    assert roots.min() == 0
    assert 0 < roots[roots > 0].min() < 0.9
    mean = (roots**2).sum(axis=0).mean()
    links = direct_links(found, ridge=2.0, max_items=1000).toarray()[: ITEMS - NEW, : ITEMS - NEW]
    np.testing.assert_allclose(links, ease(roots, 2 * mean), atol=1e-5)


def test_only_the_most_frequent_items_are_linked():
    frequency = dense_incidence().sum(axis=0)
    links = direct_links(taken(), ridge=1.0, max_items=6).toarray()
    linked = np.flatnonzero(links.any(axis=0))
    assert len(linked) <= 6
    assert frequency[linked].min() >= np.sort(frequency)[-6]
    among = np.sort(np.argsort(-frequency, kind="stable")[:6])
    incidence = dense_incidence()[:, among]
    expected = ease(incidence, incidence.sum(axis=0).mean())
    np.testing.assert_allclose(links[np.ix_(among, among)], expected, atol=1e-5)


def test_without_any_entry_there_is_no_link():
    links = direct_links(taken(sequences=[]), ridge=1.0, max_items=5)
    assert links.shape == (ITEMS, ITEMS)
    assert links.nnz == 0


def test_links_are_carried_over_to_items_alike():
    """Σ_n K_cn B_in, and Σ_m K_im Σ_n K_cn B_mn, in loops."""
    direct = direct_links(taken(), ridge=1.0, max_items=1000)
    links = {
        name: matrix.toarray()
        for name, matrix in smoothed_links(direct, NEIGHBOURS, per_item=ITEMS).items()
    }
    b, k = direct.toarray().astype(float), NEIGHBOURS.toarray().astype(float)
    everyone = range(ITEMS)
    for i in everyone:
        for c in everyone:
            similar = sum(k[c, n] * b[i, n] for n in everyone)
            likewise = sum(k[i, m] * sum(k[c, n] * b[m, n] for n in everyone) for m in everyone)
            assert links["similar"][i, c] == pytest.approx(similar, abs=1e-5)
            assert links["likewise"][i, c] == pytest.approx(likewise, abs=1e-5)
            own = similar if c >= ITEMS - NEW else b[i, c]
            assert links["direct"][i, c] == pytest.approx(own, abs=1e-5)


def test_a_new_item_is_linked_as_what_it_is_like():
    direct = direct_links(taken(), ridge=1.0, max_items=1000)
    links = smoothed_links(direct, NEIGHBOURS, per_item=ITEMS)
    new = slice(ITEMS - NEW, ITEMS)
    assert links["direct"].toarray()[:, new].any(axis=0).all()
    np.testing.assert_array_equal(
        links["direct"].toarray()[:, new], links["similar"].toarray()[:, new]
    )


@pytest.mark.parametrize("count", [1, 3, 100])
def test_the_strongest_links_of_each_row_are_kept(count):
    rng = np.random.default_rng(1)
    dense = np.where(rng.random((8, 12)) < 0.7, rng.standard_normal((8, 12)), 0)
    dense[3] = 0
    found = _strongest(sparse.csr_array(dense.astype(np.float32)), count).toarray()
    for before, after in zip(dense, found, strict=True):
        kept = sorted(np.flatnonzero(before), key=lambda column: -abs(before[column]))[:count]
        expected = np.zeros(12)
        expected[kept] = before[kept]
        np.testing.assert_allclose(after, expected, rtol=1e-6)


@pytest.mark.parametrize("per_item", [2, ITEMS])
def test_linked_scores_are_sums_over_the_history(per_item):
    direct = direct_links(taken(), ridge=1.0, max_items=1000)
    links = smoothed_links(direct, NEIGHBOURS, per_item=per_item)
    assert max(np.diff(matrix.indptr).max() for matrix in links.values()) <= per_item
    weights = {"siamese": 0.0, "content": 0.0, "direct": 0.7, "similar": -0.2, "likewise": 1.5}
    prior = np.linspace(-1, 1, ITEMS).astype(np.float32)
    blend = Blend(BlendSpec(weights=weights, floor=0.01), links, prior)
    # An item twice in a history counts once; an empty history says nothing.
    histories = [np.array([3, 9, 3]), np.array([], dtype=np.int64), np.array([22])]
    sums = blend.sums(blend.history(histories))
    found = blend.unpersonal(sums, blend.prior)
    for row, history in enumerate(histories):
        for c in range(ITEMS):
            expected = float(prior[c])
            for name, matrix in links.items():
                total = sum(matrix.toarray()[i, c] for i in set(history.tolist()))
                expected += weights[name] * np.log(0.01 + max(0.0, total))
            assert found[row, c] == pytest.approx(expected, abs=1e-4)
    assert found.dtype == np.float32
