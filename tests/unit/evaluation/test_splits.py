import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from newshelf.catalog.interactions import Interactions, latest, read_interactions
from newshelf.config import EvaluationSettings, RetrainSettings
from newshelf.errors import EvidenceError, TrainingError
from newshelf.evaluation.splits import (
    basket_split,
    choose_cold_items,
    cold_cases,
    cold_split,
    default_splits,
    newest_split,
    time_split,
)
from tests.unit.evaluation.conftest import DAY, daily_shoppers


def of(sequences, stamps, n_items=10):
    return Interactions(
        n_items=n_items,
        sequences=[np.array(row, dtype=np.int64) for row in sequences],
        timestamps=[np.array(row, dtype=np.int64) for row in stamps],
        groups=np.arange(len(sequences)),
    )


def events_before(interactions, cut):
    return sum(int((times < cut).sum()) for times in interactions.timestamps)


def test_time_split_by_hand():
    found = of([[1, 2, 1, 3, 4], [5, 6], [7, 7]], [[0, 1, 2, 8, 9], [3, 9], [8, 9]])
    split = time_split(found, 0.5)  # 5 of 9 events are at or after 8
    assert [row.tolist() for row in split.train.sequences] == [[1, 2, 1], [5]]
    assert [row.tolist() for row in split.train.timestamps] == [[0, 1, 2], [3]]
    assert [(case.history.tolist(), case.relevant.tolist()) for case in split.cases] == [
        ([2, 1], [3, 4]),  # each item at its last place
        ([5], [6]),
    ]  # the third user has no past, so is no case
    assert split.candidates.all()


def test_items_of_the_own_past_are_not_asked_for():
    split = time_split(of([[1, 2, 1], [3, 3]], [[0, 9, 9], [0, 9]]), 0.5)
    assert [case.relevant.tolist() for case in split.cases] == [[2]]


def test_training_ends_before_the_first_thing_that_is_asked_for(shop):
    interactions = read_interactions(shop)
    split = time_split(interactions, 0.2)
    last = max(int(times[-1]) for times in split.train.timestamps)
    assert events_before(interactions, last + 1) == len(split.train.items)
    every = sum(map(len, interactions.sequences))
    assert len(split.train.items) == pytest.approx(0.8 * every, abs=2)


def test_most_events_at_the_first_moment_still_leave_both_sides():
    split = time_split(of([[1, 2, 3, 4], [5, 6]], [[0, 0, 0, 9], [0, 0]]), 0.9)
    assert [case.relevant.tolist() for case in split.cases] == [[4]]


@pytest.mark.parametrize(
    ("sequences", "stamps", "reason"),
    [
        ([], [], "no events of known items"),
        ([[1, 2]], [[5, 5]], "all events have the same timestamp"),
        ([[1], [2]], [[1], [9]], "no user came back"),
    ],
)
def test_events_that_cannot_be_split_by_time_say_why(sequences, stamps, reason):
    with pytest.raises(TrainingError, match=reason):
        time_split(of(sequences, stamps), 0.5)


@pytest.mark.parametrize("key", ["test_fraction", "cold_fraction"])
@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_fraction_that_leaves_one_side_empty_is_refused(key, fraction):
    with pytest.raises(ValidationError, match=key):
        EvaluationSettings(**{key: fraction})


def test_cases_beyond_the_limit_are_sampled_by_seed(shop):
    interactions = read_interactions(shop)
    first = time_split(interactions, 0.2, seed=1, max_cases=5)
    again = time_split(interactions, 0.2, seed=1, max_cases=5)
    other = time_split(interactions, 0.2, seed=2, max_cases=5)
    histories = [[case.history.tolist() for case in split.cases] for split in (first, again, other)]
    assert len(first.cases) == 5
    assert histories[0] == histories[1] != histories[2]
    assert "5 of" in first.description


def test_no_interaction_of_a_cold_item_is_learned_or_in_a_history(shop):
    full, among_new = cold_split(read_interactions(shop), 0.2, 0.2, 7)
    cold = among_new.candidates
    assert not cold[full.train.items].any()
    assert not cold[np.concatenate([case.history for case in full.cases])].any()
    assert cold[np.concatenate([case.relevant for case in full.cases])].all()
    assert full.candidates.all()
    assert full.train is among_new.train
    assert full.cases is among_new.cases


def test_cold_training_ends_at_the_cut_too(shop):
    interactions = read_interactions(shop)
    by_time = time_split(interactions, 0.2)
    by_item = cold_split(interactions, 0.2, 0.2, 7)[0]
    last = [max(int(t[-1]) for t in split.train.timestamps) for split in (by_time, by_item)]
    assert last[1] <= last[0]


def test_held_out_items_without_any_case_are_an_error():
    with pytest.raises(TrainingError, match="give no case"):
        cold_split(of([[1], [2]], [[0], [9]]), 0.5, 0.5, 0)


def baskets(rows, groups, n_items=10):
    sequences = [np.array(row, dtype=np.int64) for row in rows]
    return Interactions(sequences, n_items=n_items, groups=np.array(groups, dtype=np.int64))


def test_no_group_of_baskets_is_torn_apart():
    rows = [[number % 10, (number + 1) % 10] for number in range(40)]
    found = baskets(rows, [number // 4 for number in range(40)])
    for seed in range(5):
        split = basket_split(found, 0.25, seed)[0]
        # Three groups of four are the first to reach a quarter.
        assert len(split.train.sequences) == 28
        rows_of = {id(basket): row for row, basket in enumerate(found.sequences)}
        kept = [rows_of[id(basket)] for basket in split.train.sequences]
        assert len({row // 4 for row in kept}) == 7


def test_each_item_of_a_basket_kept_back_is_left_out_once():
    split = basket_split(baskets([[1, 2, 3], [1, 2, 3]], [0, 1]), 0.5, 0)[0]
    assert [(case.history.tolist(), case.relevant.tolist()) for case in split.cases] == [
        ([2, 3], [1]),
        ([1, 3], [2]),
        ([1, 2], [3]),
    ]


def test_cold_baskets_ask_only_for_items_of_no_training_basket():
    every, cold = basket_split(baskets([[1, 2, 3], [1, 2, 4]], [0, 1]), 0.5, 0)
    assert len(every.cases) == 3
    assert [case.relevant.tolist() for case in cold.cases] in ([[3]], [[4]])
    assert cold.train is every.train


def test_without_a_cold_item_there_is_no_cold_split():
    assert [s.name for s in basket_split(baskets([[1, 2], [1, 2]], [0, 1]), 0.5, 0)] == ["baskets"]


@pytest.mark.parametrize(
    ("rows", "groups", "reason"),
    [
        ([[1, 2]], [0], "at least two baskets"),
        ([[1, 2], [3, 4]], [0, 0], "at least two baskets"),
        ([[1], [2]], [0, 1], "has two items"),
    ],
)
def test_baskets_that_cannot_be_split_say_why(rows, groups, reason):
    with pytest.raises(TrainingError, match=reason):
        basket_split(baskets(rows, groups), 0.5, 0)


def test_default_splits_of_events(shop):
    names = [split.name for split in default_splits(shop, EvaluationSettings(), 7)]
    assert names == ["time", "cold", "cold-among-new"]


def test_default_splits_of_baskets(tables):
    items = pd.DataFrame({"id": list("abcd"), "product_type": None})
    table = pd.DataFrame({"basket_id": list("112233"), "item_id": list("abacad")})
    splits = default_splits(tables(items, None, table), EvaluationSettings(), 7)
    assert [split.name for split in splits] == ["baskets", "baskets-cold"]


@pytest.mark.parametrize("users", ["xxyy", "wxyz"])
def test_events_with_too_few_cases_give_way_to_baskets(tables, users):
    items = pd.DataFrame({"id": list("abcd"), "product_type": None})
    events = pd.DataFrame(
        {"user_id": list(users), "item_id": list("abcd"), "timestamp": [1, 2, 3, 4]}
    ).assign(event_type="view")
    table = pd.DataFrame({"basket_id": list("1122"), "item_id": list("abac")})
    splits = default_splits(tables(items, events, table), EvaluationSettings(), 7)
    assert splits[0].name == "baskets"
    if users == "wxyz":
        with pytest.raises(TrainingError, match="came back"):
            default_splits(tables(items, events), EvaluationSettings(), 7)


def mask(items, n_items=10):
    return np.isin(np.arange(n_items), items)


def plain(found):
    return [(case.history.tolist(), case.relevant.tolist()) for case in found]


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


def test_nothing_to_hold_out_is_an_error():
    with pytest.raises(TrainingError):
        choose_cold_items(of([[3]], [[0]]), 0.5, 0)


def test_cases_after_the_cut():
    interactions = of([[1, 8, 2, 9, 3], [8, 9], [1, 2]], [[0, 1, 2, 6, 7], [0, 6], [0, 6]])
    found, after_cut = cold_cases(interactions, 5, mask([8, 9]), min_cases=1)
    assert after_cut
    assert plain(found) == [([1, 2], [9])]


def test_with_too_few_cases_each_user_is_cut_at_the_first_cold_item():
    interactions = of([[1, 8, 2, 9], [8, 1, 9], [9, 1]], [[0, 1, 2, 3], [0, 1, 6], [0, 1]])
    found, after_cut = cold_cases(interactions, 5, mask([8, 9]), min_cases=10)
    assert not after_cut
    # The second user's item 8 has nothing before it; the third has nothing cold after.
    assert plain(found) == [([1], [8, 9]), ([1], [9])]


def test_a_history_is_strictly_earlier_than_what_it_is_asked_for():
    interactions = of([[1, 2, 9], [1, 9]], [[0, 3, 3], [3, 3]])
    found, _ = cold_cases(interactions, 5, mask([9]), min_cases=10)
    assert plain(found) == [([1], [9])]


def test_a_history_never_reaches_past_the_end_of_training():
    interactions = of([[1, 2, 9], [3, 9]], [[0, 6, 7], [6, 7]])
    found, _ = cold_cases(interactions, 5, mask([9]), min_cases=10)
    assert plain(found) == [([1], [9])]


def test_latest_keeps_each_item_at_its_last_place():
    assert latest(np.array([3, 5, 3, 4, 5])).tolist() == [3, 4, 5]


def test_a_split_refuses_truth_in_the_history(make_split):
    with pytest.raises(ValueError, match=r"case 1 .*history"):
        make_split([[0]], 4, [([0], [1]), ([2, 1], [1])])


def test_a_split_refuses_truth_that_is_not_ranked(make_split):
    with pytest.raises(ValueError, match=r"case 0 .*not ranked"):
        make_split([[0]], 4, [([0], [1, 2])], candidates=[1, 3])


@pytest.mark.parametrize("case", [([], [1]), ([1], [])])
def test_a_split_refuses_a_case_without_history_or_truth(make_split, case):
    with pytest.raises(ValueError, match="case 0 lacks"):
        make_split([[0]], 4, [case])


def test_a_split_refuses_timestamps_that_do_not_fit(make_split):
    with pytest.raises(ValueError, match="differ in length"):
        make_split([[0, 1]], 4, stamps=[[5]])


SETTINGS = RetrainSettings(min_cases=30)


def test_cases_are_of_the_newest_days_and_training_is_before_them() -> None:
    split = newest_split(daily_shoppers(), 0, SETTINGS, 0)
    assert split.train.timestamps is not None
    cut = 7 * DAY + 59
    assert max(times[-1] for times in split.train.timestamps) < cut
    assert len(split.cases) == 60
    assert all(len(case.history) >= 7 for case in split.cases)


def test_what_the_served_version_has_seen_is_no_case() -> None:
    split = newest_split(daily_shoppers(), 8 * DAY + 59, SETTINGS, 0)
    assert split.train.timestamps is not None
    assert max(times[-1] for times in split.train.timestamps) == 8 * DAY + 59
    assert all(len(case.relevant) == 1 for case in split.cases)


@pytest.mark.parametrize("after", [0, 9 * DAY, 10 * DAY])
def test_too_few_cases_decide_nothing(after: int) -> None:
    wanted = SETTINGS.model_copy(update={"min_cases": 61})
    with pytest.raises(EvidenceError, match="needs 61"):
        newest_split(daily_shoppers(), after, wanted, 0)


def test_baskets_have_no_newest_days() -> None:
    with pytest.raises(EvidenceError, match="no events with times"):
        newest_split(baskets([[0, 1, 2]], [0]), 0, SETTINGS, 0)
