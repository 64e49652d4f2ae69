import numpy as np
import pytest

from newshelf.evaluation import baselines as content
from newshelf.evaluation.baselines import (
    RECENT_DAYS,
    CategoryPopularity,
    ContentNeighbours,
    Popularity,
    Random,
    default_baselines,
)

DAY = 86_400
ONE = [np.array([0])]


def ranking(ranker, history):
    return np.argsort(-ranker.scores([np.array(history)])[0], kind="stable").tolist()


def test_popularity_counts_sequences_not_repeats(make_split):
    split = make_split([[1, 2, 1, 1], [2], [2, 3]], 4)
    assert Popularity(split).scores(ONE).tolist() == [[0, 1, 3, 1]]


def test_recent_popularity_looks_at_the_last_days(make_split):
    stamps = [[0, 100 * DAY], [0], [0, 99 * DAY]]
    split = make_split([[1, 2], [1], [1, 3]], 4, stamps=stamps)
    assert ranking(Popularity(split, days=0.5), [0])[0] == 2
    assert ranking(Popularity(split, days=1000), [0])[0] == 1


def test_equal_recent_counts_are_told_apart_by_all_time(make_split):
    split = make_split([[3, 1], [3, 2], [2]], 4, stamps=[[0, 90 * DAY], [0, 90 * DAY], [0]])
    assert ranking(Popularity(split, RECENT_DAYS), [0]) == [2, 1, 3, 0]


KINDS = ["A > X", "A > X", "A > Y", "B > Z", "B > Z", None, "A > X"]


def test_popularity_in_category_prefers_the_deepest_shared_category(make_split):
    split = make_split([[1], [2], [3], [4]], 7)
    # Item 1 shares both levels, item 2 one, the items of B none.
    order = ranking(CategoryPopularity(split, KINDS), [0])
    assert order.index(1) < order.index(2) < min(order.index(3), order.index(4))


def test_an_item_that_nobody_met_inherits_from_its_category(make_split):
    split = make_split([[1], [1], [3]], 7)
    scores = CategoryPopularity(split, KINDS).scores([np.array([0])])[0]
    assert scores[6] > scores[3]
    assert scores[1] > scores[6] > 0


def test_a_history_of_two_categories_weighs_each_by_its_share(make_split):
    split = make_split([[2], [4]], 7)
    scores = CategoryPopularity(split, KINDS).scores([np.array([0, 1, 3])])[0]
    # A: 2 of 3 at the first level, none at Y; count 1 + mean 1. B > Z: 1 of 3 at both; 1 + 1/2.
    np.testing.assert_allclose(scores[[2, 4]], [2 / 3 * 2, 2 / 3 * 1.5], rtol=1e-4)


def test_without_categories_popularity_is_left(make_split):
    split = make_split([[2], [2], [1]], 3)
    assert ranking(CategoryPopularity(split, [None, None, None]), [0]) == [2, 1, 0]


def test_random_does_not_depend_on_the_batch(make_split):
    ranker = Random(make_split([[0]], 50), seed=4)
    both = ranker.scores([np.array([1]), np.array([2, 3])])
    np.testing.assert_array_equal(both[1:], ranker.scores([np.array([2, 3])]))
    assert (both[0] != both[1]).all()


def test_all_time_popularity_counts_all_time(make_split):
    split = make_split([[1, 2], [1], [3]], 4, stamps=[[0, 100 * DAY], [0], [99 * DAY]])
    assert ranking(Popularity(split, days=None), [0])[0] == 1
    assert Popularity(split, days=None).name == "popularity"
    assert Popularity(split).name == "popularity of 60 days"


def test_default_baselines_leave_out_what_lacks_its_data(shop, tables, make_split):
    features = np.eye(60, dtype=np.float32)
    split = make_split([[1, 2], [2, 3]], 60, stamps=[[1, 2], [3, 4]])
    names = [ranker.name for ranker in default_baselines(split, shop, features)]
    assert names == [
        "random",
        "popularity",
        "popularity of 60 days",
        "popularity in category",
        "content (mean)",
        "content (max)",
        "content (kernel)",
        "item-kNN",
        "item-kNN, smoothed by content",
        "EASE (λ=250)",
        "EASE with recency",
    ]
    untyped = tables(shop.items.assign(product_type=None))
    baskets = make_split([[1, 2], [2, 3]], 60)
    names = [ranker.name for ranker in default_baselines(baskets, untyped)]
    assert names == ["random", "popularity", "item-kNN", "EASE (λ=250)"]


@pytest.fixture
def features():
    drawn = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32) * 7
    drawn[11] = 0
    return drawn


HISTORIES = [np.array([0, 3, 4]), np.array([11]), np.array([2, 0]), np.array([], dtype=np.int64)]


def naive(features, history, pooling):
    scores = np.zeros(len(features))
    for item, one in enumerate(features):
        cosines = []
        for other in features[history]:
            norms = np.linalg.norm(one) * np.linalg.norm(other)
            cosines.append(float(one @ other) / norms if norms else 0.0)
        if cosines and pooling == "mean":
            scores[item] = np.mean(cosines)
        elif cosines and pooling == "max":
            scores[item] = max(cosines)
        elif cosines:
            scores[item] = sum(np.exp((np.array(cosines) - 1) / 0.1))
    return scores


@pytest.mark.parametrize("pooling", ["mean", "max", "kernel"])
@pytest.mark.parametrize("budget", [20, 10**9])
def test_scores_equal_the_naive_loop(make_split, features, pooling, budget, monkeypatch):
    monkeypatch.setattr(content, "_MAX_SIMILARITIES", budget)  # 20: one history at a time
    scores = ContentNeighbours(make_split([[0]], 12), features, pooling).scores(HISTORIES)
    assert scores.dtype == np.float32
    expected = [naive(features, history, pooling) for history in HISTORIES]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.zeros(12), np.full((12, 2), np.nan)])
def test_features_that_do_not_fit_are_refused(make_split, bad):
    with pytest.raises(ValueError, match="features"):
        ContentNeighbours(make_split([[0]], 12), bad.astype(np.float32), "mean")
