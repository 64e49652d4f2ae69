import numpy as np
import pytest

from newshelf.errors import TrainingError
from newshelf.evaluation.item_to_item import Ease


def naive(rows, n_items, ridge):
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
    weights = naive(rows, 11, 3.0)
    np.testing.assert_allclose(scores, [weights[[0, 5]].sum(0), weights[2]], atol=1e-5)
    assert (scores[:, 9:] == 0).all()


def test_by_hand(make_split):
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
