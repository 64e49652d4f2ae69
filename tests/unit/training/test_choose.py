"""A method replaces the simple one only where it is better on random folds and on look-alikes."""

from dataclasses import asdict

import pytest

from newshelf.errors import TrainingError
from newshelf.training.choose import Candidate, Score, choose
from newshelf.training.run import Run

SIMPLE = Score((0.80, 0.82, 0.78), (0.70, 0.72, 0.68))
BETTER = Score((0.90, 0.92, 0.89), (0.80, 0.81, 0.79))
RANDOM_ONLY = Score((0.95, 0.97, 0.96), (0.70, 0.71, 0.67))
GROUPS_ONLY = Score((0.80, 0.81, 0.78), (0.90, 0.92, 0.89))
UNSURE = Score((0.60, 1.00, 0.95), (0.50, 0.95, 0.90))


@pytest.fixture
def run(said) -> Run:
    return Run(7, said.console)


def choose_from(scores, run, budget_s=300.0, clock=lambda: 0.0):
    """Measure the candidates in order; an exception among the scores is raised."""
    measured = []

    def measure(candidate):
        measured.append(candidate.name)
        score = scores[candidate.name]
        if isinstance(score, Exception):
            raise score
        return score

    candidates = [Candidate(name, {"of": name}) for name in scores]
    choice = choose("features", candidates, measure, "plain", budget_s, run, clock=clock)
    return choice, measured


def test_what_is_better_on_both_kinds_of_folds_is_chosen(run):
    choice, measured = choose_from({"inner": BETTER, "plain": SIMPLE}, run)
    assert choice.name == "inner"
    assert measured == ["plain", "inner"]


@pytest.mark.parametrize("score", [RANDOM_ONLY, GROUPS_ONLY, UNSURE, SIMPLE])
def test_the_simple_way_is_kept_otherwise(run, score):
    choice, _ = choose_from({"plain": SIMPLE, "inner": score}, run)
    assert choice.name == "plain"


def test_of_two_better_ones_the_stable_one_is_chosen(run):
    stable = Score((0.85, 0.87, 0.83), (0.76, 0.78, 0.74))
    unstable = Score((0.99, 0.99, 0.98), (0.72, 0.74, 0.70))
    choice, _ = choose_from({"plain": SIMPLE, "a": unstable, "b": stable}, run)
    assert choice.name == "b"


def test_no_measurement_begins_after_the_budget(run, said):
    seconds = iter(range(0, 10_000, 25))
    choice, measured = choose_from(
        {"plain": SIMPLE, "a": SIMPLE, "b": BETTER}, run, 100, lambda: next(seconds)
    )
    assert measured == ["plain", "a"]
    assert choice.name == "plain"
    assert "the 100 s of [training] budget_s are over" in said.text


def test_a_budget_for_no_candidate_keeps_the_simple_way(run):
    seconds = iter(range(0, 10_000, 25))
    choice, measured = choose_from({"plain": SIMPLE, "a": BETTER}, run, 1, lambda: next(seconds))
    assert measured == []
    assert choice.name == "plain"


def test_a_candidate_that_fails_is_left_out_with_its_reason(run, said):
    scores = {"plain": SIMPLE, "a": TrainingError("this tower has no stages"), "b": BETTER}
    choice, _ = choose_from(scores, run)
    assert choice.name == "b"
    assert "this tower has no stages" in said.text


def test_nothing_is_compared_with_a_simple_way_without_a_result(run, said):
    scores = {"plain": TrainingError("3 labelled products are too few"), "a": BETTER}
    choice, measured = choose_from(scores, run)
    assert choice.name == "plain"
    assert measured == ["plain"]
    assert "3 labelled products are too few" in said.text


def test_the_table_is_printed_and_recorded(run, said):
    choice, _ = choose_from({"plain": SIMPLE, "inner": BETTER}, run)
    assert "inner   90.3 %    80.0 %" in said.text
    assert "better than plain by 10.3" in said.text
    record = asdict(choice)
    assert [row["name"] for row in record["table"]] == ["plain", "inner"]
    assert record["table"][1]["grouped"] == BETTER.grouped
    assert record["table"][1]["settings"] == {"of": "inner"}


def test_a_resumed_run_keeps_its_choice(tmp_path, said):
    run = Run(7, said.console, tmp_path, "same")
    first, _ = choose_from({"plain": SIMPLE, "inner": BETTER}, run)
    again, measured = choose_from({"plain": BETTER, "inner": SIMPLE}, run)
    assert (again.name, measured) == (first.name, [])
    other, _ = choose_from(
        {"plain": BETTER, "inner": SIMPLE}, Run(7, said.console, tmp_path, "other")
    )
    assert other.name == "plain"
