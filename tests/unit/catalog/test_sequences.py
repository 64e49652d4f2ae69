import numpy as np
import pandas as pd
import pytest

from newshelf.catalog.interactions import from_baskets, from_events, read_interactions
from newshelf.config import EventWeights, RobotSettings, Settings
from newshelf.errors import TrainingError
from tests.unit.evaluation.conftest import Tables

INDEX = {"a": 0, "b": 1, "c": 2, "d": 3}


def events(rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])


def lists(arrays):
    return [array.tolist() for array in arrays]


def test_events_become_sequences_in_the_order_of_time():
    table = events([("x", "b", "view", 9), ("y", "c", "view", 5), ("x", "a", "cart", 2)])
    found = from_events(table, INDEX)
    assert lists(found.sequences) == [[0, 1], [2]]
    assert lists(found.timestamps) == [[2, 9], [5]]
    assert found.n_items == 4
    assert sum(map(len, found.sequences)) == 3


def test_an_item_that_follows_itself_is_kept_once_at_its_first_time():
    rows = [("x", "a", "view", 1), ("x", "a", "purchase", 2), ("x", "b", "view", 3)]
    found = from_events(events([*rows, ("x", "a", "view", 4)]), INDEX)
    assert lists(found.sequences) == [[0, 1, 0]]
    assert lists(found.timestamps) == [[1, 3, 4]]


def test_the_same_item_of_the_next_user_is_no_repeat():
    found = from_events(events([("x", "a", "view", 1), ("y", "a", "view", 2)]), INDEX)
    assert lists(found.sequences) == [[0], [0]]


def test_events_of_one_second_keep_the_order_of_the_table():
    table = events([("x", item, "view", 7) for item in "cadb"])
    assert lists(from_events(table, INDEX).sequences) == [[2, 0, 3, 1]]


def test_events_of_unknown_items_are_left_out():
    table = events([("x", "gone", "view", 1), ("x", "b", "view", 2)])
    assert lists(from_events(table, INDEX).sequences) == [[1]]


def test_baskets_are_distinct_items_and_each_its_own_group():
    rows = [("1", "a"), ("2", "c"), ("1", "b"), ("1", "a"), ("2", "d")]
    found = from_baskets(pd.DataFrame(rows, columns=["basket_id", "item_id"]), INDEX)
    assert lists(found.sequences) == [[0, 1], [2, 3]]
    assert found.timestamps is None
    assert len(set(found.groups.tolist())) == 2


def test_baskets_of_one_scene_are_one_group_and_those_without_stand_alone():
    rows = [("1", "a", "s"), ("2", "b", None), ("3", "c", "s"), ("4", "d", None), ("1", "b", "s")]
    table = pd.DataFrame(rows, columns=["basket_id", "item_id", "scene_id"])
    groups = from_baskets(table, INDEX).groups.tolist()
    assert groups[0] == groups[2]
    assert len(set(groups)) == 3


def test_a_catalogue_without_events_is_read_by_its_baskets():
    items = pd.DataFrame({"id": list("abcd")})
    baskets = pd.DataFrame({"basket_id": ["1", "1"], "item_id": ["b", "d"]})
    found = read_interactions(Tables(items, events([]), baskets))
    assert lists(found.sequences) == [[1, 3]]


def test_a_catalogue_with_neither_says_what_to_add():
    with pytest.raises(TrainingError, match="events or a baskets table"):
        read_interactions(Tables(pd.DataFrame({"id": ["a"]})))


def test_a_run_of_one_item_has_its_largest_weight():
    rows = [("x", "a", "view", 1), ("x", "a", "purchase", 2), ("x", "b", "view", 3)]
    found = from_events(events(rows), INDEX, EventWeights(purchase=4))
    assert [row.tolist() for row in found.weights] == [[pytest.approx(1.6), pytest.approx(0.4)]]
    assert [bin(one).count("1") for one in found.types[0]] == [2, 1]
    assert from_events(events(rows), INDEX, EventWeights(view=2, purchase=2)).weights is None


def test_a_type_without_weight_is_left_out():
    rows = [("x", "a", "view", 1), ("x", "b", "purchase", 2), ("y", "c", "view", 3)]
    found = from_events(events(rows), INDEX, EventWeights(view=0))
    assert lists(found.sequences) == [[1]]
    assert from_events(events(rows[2:]), INDEX, EventWeights(view=0)).sequences == []


def test_a_column_of_weights_multiplies_those_of_the_types():
    rows = [("x", "a", "view", 1), ("x", "b", "view", 2), ("x", "c", "view", 3)]
    table = events(rows).assign(weight=[3.0, np.nan, -1.0])
    found = from_events(table, INDEX)
    assert lists(found.sequences) == [[0, 1]]
    assert lists(found.weights) == [[1.5, 0.5]]


def test_robots_do_not_reach_the_sequences():
    items = pd.DataFrame({"id": list("abcd")})
    rows = [("bot", "abcd"[at % 4], "view", at) for at in range(50)] + [("x", "a", "view", 99)]
    tables = Tables(items, events(rows + [(f"u{at}", "b", "view", at) for at in range(30)]))
    found = read_interactions(tables, Settings(robots=RobotSettings(burst_events=9)))
    assert sum(map(len, found.sequences)) == 31
    assert sum(map(len, read_interactions(tables).sequences)) == 50 + 31
