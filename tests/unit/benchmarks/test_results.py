import json

import numpy as np
import pytest

from benchmarks.report import goal_words, reached_words, row_words, value_words
from benchmarks.results import Goal, Row, TaskResult, judge

BASELINES = (Row("m", "weak", [0.1], baseline=True), Row("m", "strong", [0.4], baseline=True))


def verdict(goal, method=0.5, *, baselines=BASELINES, lower=()):
    rows = [*baselines] if method is None else [*baselines, Row("m", "method", [method])]
    result = TaskResult("t", "T", "p", rows, [goal], lower_is_better=lower)
    (found,) = judge(result)
    return found


@pytest.mark.parametrize(
    ("goal", "method", "needed", "reached"),
    [
        (Goal("m", 0.5), 0.5, 0.5, True),
        (Goal("m", 0.5), 0.4999, 0.5, False),
        (Goal("m", 1.5, "times"), 0.6, 0.6, True),
        (Goal("m", 1.5, "times"), 0.59, 0.6, False),
        (Goal("m", 0.03, "plus"), 0.43, 0.43, True),
        (Goal("m", 0.03, "plus"), 0.42, 0.43, False),
    ],
)
def test_the_best_baseline_is_the_yardstick(goal, method, needed, reached):
    found = verdict(goal, method)
    assert found.baseline.method == "strong"
    assert found.needed == pytest.approx(needed)
    assert found.reached is reached


@pytest.mark.parametrize(
    ("goal", "method", "reached"),
    [
        (Goal("m", 0.3), 0.2, True),
        (Goal("m", 0.3), 0.35, False),
        (Goal("m", 0.5, "times"), 0.05, True),
        (Goal("m", 0.5, "times"), 0.06, False),
    ],
)
def test_less_can_be_better(goal, method, reached):
    found = verdict(goal, method, lower=("m",))
    assert found.baseline.method == "weak"
    assert found.reached is reached
    assert goal_words(found, percent=False, lower=True).startswith("≤")


def test_what_was_not_measured_was_not_reached():
    missing = verdict(Goal("m", 0.1), None)
    assert (missing.reached, reached_words(missing)) == (False, "no: not measured")
    alone = verdict(Goal("m", 2, "times"), baselines=())
    assert (alone.reached, reached_words(alone)) == (False, "no: no baseline")
    assert goal_words(alone, percent=True, lower=False) == "≥ 2 × baseline = ?"


def test_a_goal_judges_the_method_that_was_chosen_without_the_test():
    rows = [*BASELINES, Row("m", "chosen", [0.45]), Row("m", "lucky", [0.6])]
    (found,) = judge(TaskResult("t", "T", "p", rows, [Goal("m", 0.5, method="chosen")]))
    assert (found.method.method, found.reached) == ("chosen", False)
    (missing,) = judge(TaskResult("t", "T", "p", rows, [Goal("m", 0.5, method="other")]))
    assert (missing.method, missing.reached) == (None, False)


def test_a_goal_of_points_says_where_it_lies():
    found = verdict(Goal("m", 0.03, "plus"))
    assert goal_words(found, percent=True, lower=False) == "≥ baseline + 3.0 points = 43.0 %"


def test_an_unknown_kind_of_goal_is_refused():
    with pytest.raises(ValueError, match="twice is none of"):
        Goal("m", 2, "twice")


@pytest.mark.parametrize("values", [[], [0.5, float("inf")]])
def test_a_row_needs_finite_values(values):
    with pytest.raises(ValueError, match="no result"):
        Row("m", "x", values)


def test_numbers_as_they_are_printed():
    assert row_words(Row("m", "x", [0.5, 0.52]), percent=True) == "51.0 ± 1.4 %"
    assert row_words(Row("m", "x", [0.5]), percent=False) == "0.5000"
    assert value_words(12.34, percent=False) == "12.3"


def test_values_are_plain_floats_whatever_they_came_as():
    row = Row("m", "x", np.array([0.5, 0.25], dtype=np.float32))
    assert json.dumps(row.values) == "[0.5, 0.25]"
