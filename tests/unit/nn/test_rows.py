import numpy as np

from newshelf.nn.rows import distinct, first_allowed, ragged


def test_the_first_allowed_rows_of_an_order():
    rng = np.random.default_rng(6)
    order = rng.permutation(500)
    for share in (1.0, 0.2, 0.01, 0.0):
        allowed = rng.random(500) < share
        for limit in (1, 7, 400):
            expected = [row for row in order.tolist() if allowed[row]][:limit]
            assert first_allowed(order, allowed, limit).tolist() == expected


def test_ranges_follow_each_other():
    which, places = ragged(np.array([5, 0, 7, 2]), np.array([2, 0, 1, 3]))
    assert which.tolist() == [0, 0, 2, 3, 3, 3]
    assert places.tolist() == [5, 6, 7, 2, 3, 4]


def test_each_row_once_in_order():
    assert distinct(np.array([3, 1, 3, 0])).tolist() == [0, 1, 3]
    assert distinct(np.array([], dtype=np.int64)).tolist() == []
