"""What is decided in the shadow phase, as scenarios."""

from dataclasses import replace

import pytest

from newshelf.rollout.decide import decide, next_state
from newshelf.rollout.operations import command
from tests.unit.rollout.conftest import (
    AT,
    PLAN,
    goes,
    observation,
    shadowed,
    state,
)


def test_a_shadow_within_its_limits_starts_the_ramp() -> None:
    assert goes(decide(PLAN, state("shadow"), shadowed())) == ("success", "ramp", 0)


def test_a_shadow_runs_for_its_minimum_time() -> None:
    seen = replace(shadowed(), seconds_in_step=59.0)
    assert goes(decide(PLAN, state("shadow"), seen)) == ("waiting", "shadow", 0)


def test_a_shadow_with_errors_is_rolled_back_at_once() -> None:
    seen = replace(shadowed(requests=50, errors=30), seconds_in_step=1.0)
    decision = decide(PLAN, state("shadow"), seen)
    assert goes(decision) == ("failure", "rolling_back", 0)
    assert decision.reason.startswith("error_rate: 30 of 50 copies failed")


def test_a_shadow_with_a_single_error_goes_on() -> None:
    assert decide(PLAN, state("shadow"), shadowed(errors=1)).phase == "ramp"


def test_a_slow_shadow_is_rolled_back() -> None:
    decision = decide(PLAN, state("shadow"), shadowed(p99_ms=300.0, p99_low_ms=210.0))
    assert goes(decision) == ("failure", "rolling_back", 0)
    assert "p99_ms: 300.0 ms for copies (at least 210.0 ms)" in decision.reason


@pytest.mark.parametrize("known", [{}, {"p99_low_ms": 190.0}])
def test_a_shadow_that_may_be_slow_waits_and_then_pauses_until_a_person_accepts_it(
    known: dict[str, float],
) -> None:
    before, seen = state("shadow"), shadowed(p99_ms=210.0, **known)
    decision = decide(PLAN, before, seen)
    assert goes(decision) == ("waiting", "shadow", 0)
    assert "not surely" in decision.reason
    late = replace(seen, seconds_in_step=601.0)
    decision = decide(PLAN, before, late)
    assert goes(decision) == ("inconclusive", "paused", 0)
    resumed = command("resume", PLAN, next_state(before, decision, AT), AT)
    assert decide(PLAN, resumed, seen).phase == "ramp"
    slow = shadowed(p99_ms=300.0, p99_low_ms=210.0)
    assert decide(PLAN, resumed, slow).phase == "rolling_back"


def test_a_shadow_without_copies_pauses_and_says_that_traffic_is_missing() -> None:
    decision = decide(PLAN, state("shadow"), observation(shadow={}, health={}, totals={}))
    assert goes(decision) == ("no_data", "paused", 0)
    assert "traffic is probably missing" in decision.reason


def test_a_shadow_with_few_copies_waits_and_then_pauses() -> None:
    few = shadowed(requests=20)
    assert goes(decide(PLAN, state("shadow"), few)) == ("waiting", "shadow", 0)
    late = replace(few, seconds_in_step=601.0)
    decision = decide(PLAN, state("shadow"), late)
    assert goes(decision) == ("inconclusive", "paused", 0)
    assert "20 of 100 copies" in decision.reason


def test_a_shadow_whose_challenger_does_not_answer_waits_and_then_pauses() -> None:
    dead = replace(shadowed(), versions_ready=False)
    assert goes(decide(PLAN, state("shadow"), dead)) == ("waiting", "shadow", 0)
    late = replace(dead, seconds_in_step=601.0)
    assert goes(decide(PLAN, state("shadow"), late)) == ("inconclusive", "paused", 0)


@pytest.mark.parametrize(
    ("seen", "name"), [({"overlap": 0.1}, "overlap"), ({"score_drift": 5.0}, "score_drift")]
)
def test_a_shadow_with_other_answers_pauses_until_a_person_accepts_it(
    seen: dict[str, float], name: str
) -> None:
    before = state("shadow")
    decision = decide(PLAN, before, shadowed(**seen))
    assert goes(decision) == ("inconclusive", "paused", 0)
    assert decision.raised == (name,)
    resumed = command("resume", PLAN, next_state(before, decision, AT), AT)
    assert decide(PLAN, resumed, shadowed(**seen)).phase == "ramp"
