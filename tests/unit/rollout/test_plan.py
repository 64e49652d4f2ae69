"""A plan that cannot work is refused before anything is done, with file, line and field."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.errors import PlanError
from newshelf.rollout.operations import command
from newshelf.rollout.plan import (
    PHASES,
    RUNNING,
    Plan,
    RolloutState,
    load_plan,
    parse_plan,
    split_of,
)
from tests.unit.rollout.conftest import (
    AT,
    PLAN,
    plan,
    state,
)

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
        ("percent: 50", "percent: 1", "p:4: ramp: step 2 has 1 % after 1 %"),
        ("percent: 1,", "percent: 51,", "p:4: ramp[0].percent: "),
        ("metric: ctr", "metric: happiness", "p:7: success[0].metric: "),
        ("metric: error_rate", "metric: happiness", "p:9: guardrails[0].metric: "),
        ('control: "1.0"\n', "", "p:1: control: is missing"),
        ('"1.1"', '"1.0"', "p:1: control and challenger are the same"),
        ('"1.1"', "1.10", "p:2: challenger: write 1.10 in quotes"),
        ("min_units: 1000", "min_units: 0", "p:5: ramp[1].min_units: "),
        ("max_seconds: 600, min_units: 1000", "max_seconds: 6, min_units: 1", "p:5: ramp[1]: "),
        ("minimum_effect: 0.1", "minimum_effect: 0", "p:7: success[0].minimum_effect: "),
        ("most: 0.02", "most: 2", "p:9: guardrails[0]: error_rate is a share"),
        ("most: 0.02", "most: 0.02, above_control: 0.1", "give exactly one of most"),
        ("most: 0.02", "times_control: 2", "error_rate has no times_control"),
        ("error_rate, most: 0.02", "p99_ms, above_control: 0.5", "p99_ms has no above_control"),
        ("error_rate, most: 0.02", "p99_ms, most: 0", "p99_ms of 0 cannot be kept"),
        ("error_rate, most: 0.02", "p99_ms, times_control: 0.5", "guardrails[0].times_control"),
        ("  - {metric: error_rate, most: 0.02}\n", "  []\n", "guardrails: give at least one"),
        ("guardrails:", "alpha: 0.9\nguardrails:", "p:8: alpha: "),
        ("guardrails:", "colour: red\nguardrails:", "p:8: colour: "),
        ("minimum_effect", "minimum", "success[0].minimum: "),
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
            "the metric preference alone",
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


@pytest.mark.parametrize("written", ["1.10", "1:30", "yes", "0777", "2024-05-01", "1_0", "0x1F"])
def test_a_version_without_quotes_is_told_as_it_is_written(written: str) -> None:
    with pytest.raises(PlanError, match=re.escape(f"challenger: write {written} in quotes")):
        parse_plan(GOOD.replace('"1.1"', written), "p")
    assert parse_plan(GOOD.replace('"1.1"', f"'{written}'")).challenger == written
    with pytest.raises(PlanError, match=re.escape(f"overrides: write {written} in quotes")):
        parse_plan(f"{GOOD}overrides: {{{written}: control}}\n", "p")


@pytest.mark.parametrize(
    ("old", "written", "told"),
    [
        ("min_seconds: 60", "1:30", "ramp[0].min_seconds: write a number, not 1:30"),
        ("min_seconds: 60", "yes", "ramp[0].min_seconds: write a number, not yes"),
        ("min_seconds: 60", "true", "ramp[0].min_seconds: write a number, not true"),
        ("min_seconds: 60", "2024-05-01", "write a number, not 2024-05-01"),
        ("min_seconds: 60", "0x3C", "write a number, not 0x3C"),
        ("min_seconds: 60", "~", "not ~"),
        ("min_seconds: 60", "", "ramp[0].min_seconds: Input should be a valid number"),
        ("percent: 1", "51", "less than or equal to 50, not 51"),
        ("min_units: 100", "1.50", "ramp[0].min_units: write a whole number, not 1.50"),
        ("metric: ctr", "Yes", ", not Yes"),
        ("metric: ctr", "[a, b]", ", not [a, b]"),
    ],
)
def test_a_value_is_told_as_it_is_written(old: str, written: str, told: str) -> None:
    new = f"{old.partition(':')[0]}: {written}"
    with pytest.raises(PlanError) as raised:
        parse_plan(re.sub(rf"{old}\b", new, GOOD, count=1), "p")
    assert told in raised.value.message


def test_numbers_are_those_that_are_written() -> None:
    old = "min_seconds: 60, max_seconds: 600, min_units: 100}"
    new = "min_seconds: 090, max_seconds: 6.e2, min_units: 1_000}"
    step = parse_plan(GOOD.replace(old, new) + "interleaving: off\n").ramp[0]
    assert (step.min_seconds, step.max_seconds, step.min_units) == (90, 600, 1000)


def test_values_may_be_referred_to() -> None:
    steps = """\
  - &small {percent: 1, min_seconds: 60, max_seconds: 600, min_units: 100}
  - {<<: *small, percent: 50}
"""
    head, _, tail = GOOD.partition("  - {percent: 1")
    text = head + steps + "success:" + tail.partition("success:")[2]
    assert [step.percent for step in parse_plan(text).ramp] == [1, 50]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("? [a, b]\n: 1\n", "p:1: the name of a field is plain text"),
        ("ramp:\n  - ? {a: b}\n    : 1\n", "p:2: the name of a field is plain text"),
        ("a: &a [*a]\n", "in itself"),
        ("&a\nb: *a\n", "in itself"),
        ("a: &a\n  <<: *a\n", "a: there is no such field"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: !!python/name:os", "has an unknown tag"),
        ("a: !secret x", "p:1: !secret x has an unknown tag"),
        ("control: 2024-99-99", "write 2024-99-99 in quotes"),
        ("alpha: !!int abc", "alpha: write a number, not !!int abc"),
        (f"alpha: {'9' * 5000}", "alpha: "),
        ('"\\ud800": 1', 'plain text, not "\\ud800"'),
        (f'{GOOD}overrides: {{"\\ud800": control}}', 'plain text, not "\\ud800"'),
        (f'{GOOD}overrides: {{ann: "\\ud800"}}', "overrides.ann: Input should be"),
        ('control: "\\ud800"', "control: "),
        ("<<: 1\n", "p is not YAML"),
        ("a: 1\n---\nb: 2\n", "p is not YAML"),
        ("a: *b\n", "p is not YAML"),
        ("a: \x00", "p is not YAML"),
    ],
    ids=lambda value: value[:40],
)
def test_odd_yaml_is_an_error_and_no_traceback(text: str, told: str) -> None:
    with pytest.raises(PlanError) as raised:
        parse_plan(text, "p")
    assert told in raised.value.message
    raised.value.message.encode()


ODD = st.sampled_from(
    ["? ", "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "<<: ", "!!set ", "!!binary ", "!!omap ",
     "|\n", "\n", "\n  ", ", ", "'", '"', "\\ud800", "#", "%", "~", "1:30", "yes", ".inf", "0o7",
     "2001-13-40", "ramp", "overrides", "control", "---\n", "=", "\t", "\ufeff", "é"]
)  # fmt: skip


@given(st.data())
def test_whatever_is_written_is_a_plan_or_an_error_that_can_be_printed(data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        more = "".join(data.draw(st.lists(ODD | st.text(max_size=3), max_size=5)))
        text = text[:place] + more + text[place + data.draw(st.integers(0, 12)) :]
    try:
        told = parse_plan(text, "p").model_dump_json()
    except PlanError as error:
        told = error.message
    assert told.encode().startswith((b"p", b"{"))


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
    with pytest.raises(PlanError, match=r"none\.yaml: No such file"):
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


def test_every_phase_has_a_sentence() -> None:
    assert set(PHASES) == set(RolloutState.model_fields["phase"].annotation.__args__)
    assert all(sentence.endswith(".") for sentence in PHASES.values())


@pytest.mark.parametrize("phase", PHASES)
def test_shoppers_are_split_only_while_it_runs(phase: str) -> None:
    resumes = {"resumes_to": "ramp"} if phase == "paused" else {}
    split = split_of(PLAN, state(phase, **resumes))
    assert (split is not None) == (phase in RUNNING)


def test_in_shadow_requests_are_copied_and_nobody_is_split() -> None:
    for before in (state("shadow"), state("paused", resumes_to="shadow")):
        split = split_of(plan(interleaving=False), before)
        assert split is not None
        assert (split.shadow, split.share, split.interleave) == (True, 0.0, False)


def test_a_pause_keeps_the_split() -> None:
    before = state("ramp", step=1)
    assert split_of(PLAN, command("pause", PLAN, before, AT)) == split_of(PLAN, before)


def test_the_split_is_what_the_plan_says() -> None:
    full = plan(holdout=0.01, overrides={"me": "challenger"})
    split = split_of(full, state("ramp", step=0))
    assert split is not None
    assert split.model_dump() == {
        "rollout": "rings",
        "salt": "pepper",
        "control": "1.0",
        "challenger": "1.1",
        "share": 0.1,
        "holdout": 0.01,
        "shadow": False,
        "interleave": False,
        "overrides": {"me": "challenger"},
    }


def test_the_state_survives_json() -> None:
    one = state("paused", resumes_to="ramp", raised=("coverage",), accepted=("diversity",))
    assert RolloutState.model_validate_json(one.model_dump_json()) == one


def test_a_ramp_never_takes_units_away() -> None:
    splits = [split_of(PLAN, state("ramp", step=step)) for step in range(2)]
    for low, high in pairwise(splits):
        assert low is not None
        assert high is not None
        assert low.share < high.share
        assert low.salt == high.salt
