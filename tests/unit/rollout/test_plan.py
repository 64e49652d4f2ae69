"""A plan that cannot work is refused before anything is done, with file, line and field."""

from pathlib import Path

import pytest

from newshelf.errors import PlanError
from newshelf.rollout.plan import Plan
from newshelf.rollout.plan_file import load_plan, parse_plan
from tests.unit.rollout.conftest import plan

EXAMPLE = Path(__file__).resolve().parents[3] / "configs" / "rollout.yaml"
GOOD = """\
control: "1.0"
challenger: "1.1"
ramp:
  - {percent: 1, min_seconds: 60, max_seconds: 600, min_units: 100}
  - {percent: 50, min_seconds: 60, max_seconds: 600, min_units: 1000}
success:
  - {metric: ctr, minimum_effect: 0.1}
guardrails:
  - {metric: error_rate, most: 0.02}
"""


def test_the_example_is_a_plan_of_every_part() -> None:
    example = load_plan(EXAMPLE)
    assert [step.percent for step in example.ramp] == [1, 5, 10, 25, 50]
    given = example.model_dump(exclude_unset=True)
    assert set(given) == set(Plan.model_fields)


def test_the_example_gives_a_reason_for_its_values() -> None:
    lines = EXAMPLE.read_text().splitlines()
    fields = [line for line in lines if ":" in line and not line.lstrip().startswith("#")]
    assert sum("#" in line for line in fields) > len(fields) / 2


def test_what_may_be_left_out() -> None:
    small = parse_plan(GOOD)
    assert small.shadow is None
    assert (small.alpha, small.guardrail_alpha, small.power) == (0.05, 0.05, 0.8)
    assert not small.interleaving


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("percent: 50", "percent: 1", "p:4: ramp: step 2 has 1 % after 1 %; steps"),
        ("percent: 1,", "percent: 51,", "p:4: ramp[0].percent: "),
        ("metric: ctr", "metric: happiness", "p:7: success[0].metric: "),
        ("metric: error_rate", "metric: happiness", "p:9: guardrails[0].metric: "),
        ('control: "1.0"\n', "", "p:1: control: is missing"),
        ('"1.1"', '"1.0"', "p:1: control and challenger are the same version, '1.0'"),
        ('"1.1"', "1.10", "p:2: challenger: write 1.1 in quotes"),
        ("min_units: 1000", "min_units: 0", "p:5: ramp[1].min_units: "),
        ("max_seconds: 600, min_units: 1000", "max_seconds: 6, min_units: 1", "p:5: ramp[1]: "),
        ("minimum_effect: 0.1", "minimum_effect: 0", "p:7: success[0].minimum_effect: "),
        ("most: 0.02", "most: 2", "p:9: guardrails[0]: error_rate is a share"),
        ("most: 0.02", "most: 0.02, above_control: 0.1", "give exactly one of most"),
        ("most: 0.02", "times_control: 2", "error_rate has no times_control; give most or above"),
        ("error_rate, most: 0.02", "p99_ms, above_control: 0.5", "p99_ms has no above_control"),
        ("error_rate, most: 0.02", "p99_ms, most: 0", "p99_ms of 0 cannot be kept"),
        ("error_rate, most: 0.02", "p99_ms, times_control: 0.5", "guardrails[0].times_control"),
        ("  - {metric: error_rate, most: 0.02}\n", "  []\n", "guardrails: give at least one"),
        ("guardrails:", "alpha: 0.9\nguardrails:", "p:8: alpha: "),
        ("guardrails:", "colour: red\nguardrails:", "p:8: colour: there is no such field"),
        ("minimum_effect", "minimum", "success[0].minimum: there is no such field"),
        ("guardrails:", "control: x\nguardrails:", "p:8: control is given twice"),
        ("most: 0.02}", "most: 0.02, most: 0.03}", "p:9: most is given twice"),
        ("most: 0.02}", "most: .nan}", "guardrails[0].most: "),
        (
            "guardrails:\n",
            "guardrails:\n  - {metric: error_rate, most: 0.1}\n",
            "error_rate.most is given twice",
        ),
        ("metric: ctr", "metric: preference", "preference needs interleaving: true"),
        (
            "guardrails:",
            "interleaving: true\nguardrails:",
            "success is the metric preference alone",
        ),
        ("guardrails:", "overrides: {me: both}\nguardrails:", "p:8: overrides.me: "),
    ],
)
def test_what_is_wrong_is_told_with_its_place(old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(PlanError) as raised:
        parse_plan(GOOD.replace(old, new), "p")
    assert told in raised.value.message
    assert raised.value.message.startswith("p")


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = GOOD.replace("metric: ctr", "metric: x").replace("most: 0.02", "most: -1")
    with pytest.raises(PlanError) as raised:
        parse_plan(text, "p")
    assert len(raised.value.message.splitlines()) == 2


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "a: [", "a: !!python/name:os"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"^p "):
        parse_plan(text, "p")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read the plan .*none\.yaml: No such file"):
        load_plan(tmp_path / "none.yaml")
    (tmp_path / "plan.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match=r"plan\.yaml is not UTF-8"):
        load_plan(tmp_path / "plan.yaml")


def test_preference_is_for_interleaving() -> None:
    success = [{"metric": "preference", "minimum_effect": 0.05}]
    assert plan(interleaving=True, success=success).interleaving
    for wrong in ({"minimum_effect": 0.6}, {"direction": "decrease"}):
        with pytest.raises(ValueError, match="preference"):
            plan(interleaving=True, success=[success[0] | wrong])


def test_less_than_nothing_cannot_be_wanted() -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        plan(success=[{"metric": "cvr", "direction": "decrease", "minimum_effect": 1.5}])
