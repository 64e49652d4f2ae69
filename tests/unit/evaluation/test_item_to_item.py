import numpy as np
import pytest

from newshelf.errors import TrainingError
from newshelf.evaluation.baselines import Ease, ItemKnn, RecentEase, SmoothedKnn


def drawn(seed, n_items=12, n_rows=30):
    generator = np.random.default_rng(seed)
    return [generator.choice(n_items - 2, size=4, replace=False).tolist() for _ in range(n_rows)]


def naive_similarities(rows, n_items, neighbours, shrinkage):
    """sim(i, j), pair by pair."""
    sets = [set(row) for row in rows]
    similar = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            if i != j:
                together = sum(i in row and j in row for row in sets)
                own, other = (sum(k in row for row in sets) for k in (i, j))
                norm = np.sqrt(own * other) + shrinkage
                similar[i, j] = together / norm if norm else 0
        far = np.argsort(-similar[i], kind="stable")[neighbours:]
        similar[i, far] = 0
    return similar


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(99, 0.0), (99, 10.0), (11, 2.0)])
def test_scores_equal_the_sum_over_the_pairs(make_split, neighbours, shrinkage):
    rows = drawn(1)
    found = ItemKnn(make_split(rows, 12), neighbours, shrinkage).scores(
        [np.array([0, 5]), np.array([11])]
    )
    similar = naive_similarities(rows, 12, neighbours, shrinkage)
    np.testing.assert_allclose(found, [similar[[0, 5]].sum(0), np.zeros(12)], atol=1e-6)


def test_only_the_nearest_are_kept(make_split):
    rows = [[0, 1], [0, 1], [0, 1], [0, 2], [3, 2]]
    found = ItemKnn(make_split(rows, 4), neighbours=1, shrinkage=0).scores([np.array([0])])[0]
    assert found[1] > 0
    assert (found[[0, 2, 3]] == 0).all()


def test_blocks_of_rows_do_not_matter(make_split, monkeypatch):
    rows, asked = drawn(2), [np.array([3, 4])]
    whole = ItemKnn(make_split(rows, 12), 5).scores(asked)
    monkeypatch.setattr("newshelf.evaluation.baselines._ROWS", 5)
    np.testing.assert_array_equal(ItemKnn(make_split(rows, 12), 5).scores(asked), whole)


def naive_smoothed(rows, features, mix, neighbours, temperature, shrinkage):
    n = len(features)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    spread = np.zeros((n, n))
    for i in range(n):
        others = [j for j in range(n) if j != i and features[j].any()]
        near = sorted(others, key=lambda j: -(unit[i] @ unit[j]))[:neighbours]
        weights = np.exp([unit[i] @ unit[j] / temperature for j in near])
        if features[i].any():
            spread[i, near] = weights / weights.sum()
    passed = (1 - mix) * np.eye(n) + mix * spread
    return passed @ naive_similarities(rows, n, n, shrinkage) @ passed.T


def test_smoothing_equals_the_product_of_the_matrices(make_split):
    rows = drawn(3)
    features = np.random.default_rng(4).normal(size=(12, 5)).astype(np.float32)
    features[7] = 0
    found = SmoothedKnn(make_split(rows, 12), features, 0.4, 3, 0.2, 1.0).scores([np.array([1, 7])])
    expected = naive_smoothed(rows, features, 0.4, 3, 0.2, 1.0)[[1, 7]].sum(0)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_an_item_that_nobody_met_is_found_through_its_lookalike(make_split):
    features = np.eye(4, dtype=np.float32)
    features[3] = features[1] + 0.01  # 3 was never met, and looks like 1
    split = make_split([[0, 1], [0, 1], [0, 2]], 4)
    found = SmoothedKnn(split, features, neighbours=1).scores([np.array([0])])[0]
    assert found[3] > found[2]
    assert ItemKnn(split).scores([np.array([0])])[0][3] == 0


@pytest.mark.parametrize(
    "features", [np.ones((3, 2)), np.ones(4), np.array([[1.0, np.nan]] * 4)], ids=str
)
def test_features_that_do_not_fit_are_refused(make_split, features):
    with pytest.raises(ValueError, match="features"):
        SmoothedKnn(make_split([[0, 1]], 4), features.astype(np.float32))


def test_recent_items_count_more(make_split):
    ease = Ease(make_split(drawn(5), 12), ridge=2.0)
    recent = RecentEase(ease, half_life=1.0)
    parts = ease.scores([np.array([0]), np.array([1]), np.array([2])])
    found = recent.scores([np.array([0, 1, 2])])
    np.testing.assert_allclose(found[0], parts[0] / 4 + parts[1] / 2 + parts[2], atol=1e-6)
    # What comes twice has the age of its last time.
    np.testing.assert_allclose(recent.scores([np.array([2, 0, 1, 2])]), found, atol=1e-6)


def test_without_forgetting_it_is_ease(make_split):
    ease = Ease(make_split(drawn(6), 12))
    asked = [np.array([4, 1, 8])]
    found = RecentEase(ease, half_life=1e9).scores(asked)
    np.testing.assert_allclose(found, ease.scores(asked), atol=1e-6)


def naive_weights(rows, n_items, ridge):
    """B by the constrained regression of each column on the others, solved one by one."""
    x = np.zeros((len(rows), n_items))
    for number, row in enumerate(rows):
        x[number, row] = 1
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        gram = x[:, others].T @ x[:, others] + ridge * np.eye(n_items - 1)
        weights[others, item] = np.linalg.solve(gram, x[:, others].T @ x[:, item])
    return weights


def test_closed_form_equals_the_regression_of_each_item(make_split):
    generator = np.random.default_rng(1)
    rows = [generator.choice(9, size=4, replace=False).tolist() for _ in range(30)]
    ranker = Ease(make_split(rows, 11), ridge=3.0)  # items 9 and 10 were met by nobody
    scores = ranker.scores([np.array([0, 5]), np.array([10, 2])])
    weights = naive_weights(rows, 11, 3.0)
    np.testing.assert_allclose(scores, [weights[[0, 5]].sum(0), weights[2]], atol=1e-5)
    assert (scores[:, 9:] == 0).all()


def test_ease_by_hand(make_split):
    # XᵀX + I = [[3, 2], [2, 3]], P = [[.6, -.4], [-.4, .6]], B = [[0, 2/3], [2/3, 0]].
    ranker = Ease(make_split([[0, 1], [1, 0]], 2), ridge=1.0)
    np.testing.assert_allclose(ranker.scores([np.array([0])]), [[0, 2 / 3]], atol=1e-6)


def test_a_repeated_item_counts_once(make_split):
    once = Ease(make_split([[0, 1], [1, 2]], 3)).scores([np.array([1])])
    often = Ease(make_split([[0, 1, 0], [1, 2]], 3)).scores([np.array([1, 1])])
    np.testing.assert_array_equal(once, often)


def test_too_many_items_are_refused(make_split):
    with pytest.raises(TrainingError, match=r"3 items .* at most 2"):
        Ease(make_split([[0, 1, 2]], 5), max_items=2)


def test_a_ridge_that_leaves_the_matrix_singular_is_refused(make_split):
    with pytest.raises(TrainingError, match="larger λ"):
        Ease(make_split([[0, 1]], 2), ridge=0.0)
