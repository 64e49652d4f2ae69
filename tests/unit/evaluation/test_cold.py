import numpy as np
import pytest

from newshelf.catalog.interactions import Interactions, latest
from newshelf.errors import TrainingError
from newshelf.evaluation.splits import choose_cold_items, cold_cases


def of(sequences, stamps, n_items=10):
    return Interactions(
        n_items,
        [np.array(row, dtype=np.int64) for row in sequences],
        [np.array(row, dtype=np.int64) for row in stamps],
        np.arange(len(sequences)),
    )


def mask(items, n_items=10):
    return np.isin(np.arange(n_items), items)


def plain(found):
    return [(case.history.tolist(), case.relevant.tolist()) for case in found.cases]


def test_items_without_interactions_are_never_held_out():
    interactions = of([[0, 1, 2], [5, 6]], [[0, 1, 2], [0, 1]])
    for seed in range(30):
        cold = np.flatnonzero(choose_cold_items(interactions, 0.6, seed))
        assert len(cold) == 3
        assert set(cold.tolist()) <= {0, 1, 2, 5, 6}


def test_each_stratum_gives_its_share():
    interactions = of([np.arange(100)], [np.zeros(100)], n_items=100)
    strata = np.array(["a"] * 80 + ["b"] * 20)
    for seed in range(10):
        cold = choose_cold_items(interactions, 0.1, seed, strata)
        assert cold[:80].sum() == 8
        assert cold[80:].sum() == 2


def test_the_choice_depends_on_the_seed_alone():
    interactions = of([np.arange(100)], [np.zeros(100)], n_items=100)
    chosen = [choose_cold_items(interactions, 0.2, seed).tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_something_stays_to_learn_from():
    interactions = of([[3, 4]], [[0, 1]])
    assert choose_cold_items(interactions, 0.99, 0).sum() == 1
    assert choose_cold_items(interactions, 0.01, 0).sum() == 1


@pytest.mark.parametrize(("sequence", "fraction"), [([3], 0.5), ([3, 4], 0.0), ([3, 4], 1.0)])
def test_nothing_to_hold_out_is_an_error(sequence, fraction):
    with pytest.raises(TrainingError):
        choose_cold_items(of([sequence], [range(len(sequence))]), fraction, 0)


def test_cases_after_the_cut():
    interactions = of([[1, 8, 2, 9, 3], [8, 9], [1, 2]], [[0, 1, 2, 6, 7], [0, 6], [0, 6]])
    found = cold_cases(interactions, 5, mask([8, 9]), min_cases=1)
    assert found.after_cut
    assert plain(found) == [([1, 2], [9])]


def test_with_too_few_cases_each_user_is_cut_at_the_first_cold_item():
    interactions = of([[1, 8, 2, 9], [8, 1, 9], [9, 1]], [[0, 1, 2, 3], [0, 1, 6], [0, 1]])
    found = cold_cases(interactions, 5, mask([8, 9]), min_cases=10)
    assert not found.after_cut
    # The second user's item 8 has nothing before it; the third has nothing cold after.
    assert plain(found) == [([1], [8, 9]), ([1], [9])]


def test_a_history_is_strictly_earlier_than_what_it_is_asked_for():
    interactions = of([[1, 2, 9], [1, 9]], [[0, 3, 3], [3, 3]])
    found = cold_cases(interactions, 5, mask([9]), min_cases=10)
    assert plain(found) == [([1], [9])]


def test_a_history_never_reaches_past_the_end_of_training():
    interactions = of([[1, 2, 9], [3, 9]], [[0, 6, 7], [6, 7]])
    found = cold_cases(interactions, 5, mask([9]), min_cases=10)
    assert plain(found) == [([1], [9])]


def test_latest_keeps_each_item_at_its_last_place():
    assert latest(np.array([3, 5, 3, 4, 5])).tolist() == [3, 4, 5]
