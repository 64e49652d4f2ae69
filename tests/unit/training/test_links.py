"""What was taken together, beside the formulas computed densely and beside loops."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from newshelf.catalog.interactions import Sequences
from newshelf.evaluation.baselines import keep_strongest
from newshelf.nn.blend import Blend, content_neighbours
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.spec import BlendSpec
from newshelf.training.signals import (
    direct_links,
    incidence_matrix,
)

DAY = 86_400
ITEMS, NEW = 24, 4
# The last four items were never taken.
RNG = np.random.default_rng(5)
SEQUENCES = [RNG.permutation(ITEMS - NEW)[: 2 + at % 4].astype(np.int64) for at in range(30)]
NEIGHBOURS = content_neighbours(
    F.normalize(torch.randn(ITEMS, 5, generator=torch.Generator().manual_seed(2)), dim=1).numpy()
)


def taken(timestamps=None, half_life_days: float = 60, sequences=SEQUENCES):
    return incidence_matrix(Sequences(sequences, timestamps), ITEMS, half_life_days)


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
    links = direct_links(taken(), ridge=0.5, max_items=1000, per_item=ITEMS).toarray()
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
    dense = found.toarray()
    assert {place: dense[place] for place in expected} == pytest.approx(expected)
    assert found.nnz == 3


def test_faded_links_are_ease_of_the_roots_of_the_weights():
    stamps = [np.arange(len(s)) * 5 * DAY + 3 * DAY * at for at, s in enumerate(SEQUENCES)]
    found = taken(stamps, 30)
    roots = np.sqrt(found.toarray())[:, : ITEMS - NEW]
    assert roots.min() == 0
    assert 0 < roots[roots > 0].min() < 0.9
    mean = (roots**2).sum(axis=0).mean()
    links = direct_links(found, ridge=2.0, max_items=1000, per_item=ITEMS).toarray()[
        : ITEMS - NEW, : ITEMS - NEW
    ]
    np.testing.assert_allclose(links, ease(roots, 2 * mean), atol=1e-5)


def test_only_the_most_frequent_items_are_linked():
    frequency = dense_incidence().sum(axis=0)
    links = direct_links(taken(), ridge=1.0, max_items=6, per_item=ITEMS).toarray()
    linked = np.flatnonzero(links.any(axis=0))
    assert len(linked) <= 6
    assert frequency[linked].min() >= np.sort(frequency)[-6]
    among = np.sort(np.argsort(-frequency, kind="stable")[:6])
    incidence = dense_incidence()[:, among]
    expected = ease(incidence, incidence.sum(axis=0).mean())
    np.testing.assert_allclose(links[np.ix_(among, among)], expected, atol=1e-5)


def test_without_any_entry_there_is_no_link():
    links = direct_links(taken(sequences=[]), ridge=1.0, max_items=5, per_item=ITEMS)
    assert links.shape == (ITEMS, ITEMS)
    assert links.nnz == 0


@pytest.mark.parametrize("count", [1, 3, 100])
def test_the_strongest_links_of_each_row_are_kept(count):
    rng = np.random.default_rng(1)
    dense = np.where(rng.random((8, 12)) < 0.7, rng.standard_normal((8, 12)), 0)
    dense[3] = 0
    found = dense.astype(np.float32)
    keep_strongest(found, count)
    for before, after in zip(dense, found, strict=True):
        kept = sorted(np.flatnonzero(before), key=lambda column: -abs(before[column]))[:count]
        expected = np.zeros(12)
        expected[kept] = before[kept]
        np.testing.assert_allclose(after, expected, rtol=1e-6)


WEIGHTS = {"siamese": 0.0, "content": 0.0, "direct": 0.7, "similar": -0.2, "likewise": 1.5}


def blend_of(per_item: int) -> Blend:
    links = direct_links(taken(), ridge=1.0, max_items=1000, per_item=per_item)
    prior = np.linspace(-1, 1, ITEMS).astype(np.float32)
    return Blend(BlendSpec(weights=WEIGHTS, floor=0.01), links, NEIGHBOURS, prior)


@pytest.mark.parametrize("per_item", [2, ITEMS])
def test_linked_scores_are_sums_over_history_and_neighbours(per_item):
    """Σ_i B_ic, Σ_i Σ_n K_cn B_in, and Σ_i Σ_m K_im Σ_n K_cn B_mn, in loops."""
    blend = blend_of(per_item)
    assert np.diff(blend.links.indptr).max() <= per_item
    b, k = blend.links.toarray().astype(float), NEIGHBOURS.toarray().astype(float)
    # An item twice in a history counts once; an empty history says nothing.
    histories = [np.array([3, 9, 3]), np.array([], dtype=np.int64), np.array([22])]
    links, everyone = BlendLookup(blend), range(ITEMS)
    sums_of = [links.sums(np.unique(history)) for history in histories]
    signals = [links.signals(sums, np.arange(ITEMS)) for sums in sums_of]
    found = np.stack([links.everywhere(sums) for sums in sums_of])
    for row, history in enumerate(histories):
        for c in everyone:
            sums = dict.fromkeys(("direct", "similar", "likewise"), 0.0)
            for i in set(history.tolist()):
                sums["direct"] += b[i, c]
                sums["similar"] += sum(k[c, n] * b[i, n] for n in everyone)
                sums["likewise"] += sum(
                    k[i, m] * k[c, n] * b[m, n] for m in everyone for n in everyone
                )
            if not b[:, c].any():
                sums["direct"] = sums["similar"]
            expected = float(blend.prior[c])
            for link, (name, total) in enumerate(sums.items()):
                signal = math.log(0.01 + max(0.0, total))
                assert signals[row][link, c] == pytest.approx(signal, abs=1e-4)
                expected += WEIGHTS[name] * signal
            assert found[row, c] == pytest.approx(expected, abs=1e-4)
    assert found.dtype == np.float32


def test_a_new_item_is_linked_as_what_it_is_like():
    blend = blend_of(ITEMS)
    assert np.flatnonzero(blend.unlinked).tolist() == list(range(ITEMS - NEW, ITEMS))
    links = BlendLookup(blend)
    signals = [links.signals(links.sums(one), np.arange(ITEMS)) for one in SEQUENCES]
    direct, similar, _ = np.stack(signals, axis=1)
    new, known = direct[:, ITEMS - NEW :], direct[:, : ITEMS - NEW]
    np.testing.assert_array_equal(new, similar[:, ITEMS - NEW :])
    assert (new > np.log(0.011)).any(axis=0).all()
    assert not np.array_equal(known, similar[:, : ITEMS - NEW])


def test_a_product_from_outside_is_linked_as_its_shares_are():
    """As an indexed item without links would be that had the same neighbours."""
    blend = blend_of(ITEMS)
    links, new = BlendLookup(blend), np.arange(ITEMS - NEW, ITEMS)
    alike = NEIGHBOURS[new]
    shape = NEW, -1
    outside = links.newcomers(alike.indices.reshape(shape), alike.data.reshape(shape))
    for history in SEQUENCES[:5]:
        sums = links.sums(history)
        indexed = links.unpersonal(sums, new) - blend.prior[new]
        found = links.outside(sums, outside) - outside.prior
        np.testing.assert_allclose(found, indexed, atol=1e-6)
