import numpy as np

from newshelf.evaluation.baselines import (
    RECENT_DAYS,
    CategoryPopularity,
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
