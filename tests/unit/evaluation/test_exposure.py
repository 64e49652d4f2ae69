import numpy as np
import pytest

from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.metrics import ItemPopularity, coverage, exposures, gini

TRAIN = [np.array(row) for row in ([0, 1, 0], [0, 2], [0], [1])]


def test_popularity_is_the_share_of_sequences_not_of_events():
    assert ItemPopularity(TRAIN, 5).share.tolist() == [0.75, 0.5, 0.25, 0, 0]


def test_novelty_is_the_mean_surprise_of_a_list():
    # One sequence more, that has them all: 4/5, 3/5, and 1/5 for what nobody met.
    found = ItemPopularity(TRAIN, 5).novelty(np.array([[0, 1], [3, 4], [2, -1]]))
    expected = [-(np.log2(4 / 5) + np.log2(3 / 5)) / 2, np.log2(5), -np.log2(2 / 5)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_average_popularity_and_the_share_of_the_head():
    known = ItemPopularity(
        [np.array([number % 3]) for number in range(9)] + [np.array([7])] * 9, 20
    )
    top = np.array([[7, 0], [4, 5]])
    np.testing.assert_allclose(known.average(top), [(9 / 18 + 3 / 18) / 2, 0], rtol=1e-6)
    assert known.head.sum() == 2  # the tenth of 20 items
    assert known.head_share(top).tolist() == [1.0, 0.0]


def test_an_empty_list_says_nothing():
    assert ItemPopularity(TRAIN, 5).average(np.array([[-1, -1]])).tolist() == [0]


def naive_gini(values):
    """Mean absolute difference of all pairs over twice the mean."""
    pairs = np.abs(values[:, None] - values[None, :]).mean()
    return pairs / (2 * values.mean())


@pytest.mark.parametrize("seed", range(5))
def test_gini_equals_the_mean_difference_of_all_pairs(seed):
    values = np.random.default_rng(seed).integers(0, 9, size=30).astype(float)
    assert gini(values) == pytest.approx(naive_gini(values))


def test_gini_of_equal_and_of_single_exposure():
    assert gini(np.full(7, 3.0)) == pytest.approx(0)
    assert gini(np.eye(10)[0]) == pytest.approx(0.9)


def test_exposures_leave_empty_places_out():
    shown = exposures(np.array([[1, 2], [1, -1]]), 4)
    assert shown.tolist() == [0, 2, 1, 0]
    assert coverage(shown) == 0.5


class Given:
    name = "given"

    def __init__(self, row):
        self.row = np.array(row, dtype=np.float32)

    def scores(self, histories):
        return np.tile(self.row, (len(histories), 1))


def test_evaluate_reports_all_of_it(make_split):
    split = make_split([[0, 1], [1]], 4, [([0], [1]), ([0], [3])])
    found = evaluate(Given([0, 3, 2, 1]), split, (1, 2))  # lists: 1, 2
    assert found.hit_rate == {1: 0.5, 2: 0.5}
    assert found.popularity == {1: 1.0, 2: 0.5}
    assert found.novelty[1] == pytest.approx(0)
    assert found.novelty[2] == pytest.approx(np.log2(3) / 2)
    assert found.coverage == {1: 0.25, 2: 0.5}
    assert found.gini[1] == pytest.approx(0.75)
    assert found.per_case["HitRate@2"].tolist() == [1, 0]
    assert found.intervals == {}  # two cases are too few
