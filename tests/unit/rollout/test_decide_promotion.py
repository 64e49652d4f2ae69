"""What is decided while promoting."""

from dataclasses import replace

import pytest

from newshelf.rollout.decide import decide, next_state
from newshelf.rollout.operations import command
from tests.unit.rollout.conftest import (
    AT,
    PLAN,
    WORSE,
    challenger,
    goes,
    observation,
    plan,
    state,
    totals,
)

LOST = {"control": totals(seed=1), "challenger": totals(1700, 0.13, seed=2)}


def test_a_healthy_promotion_is_completed() -> None:
    promoting = state("promoting", step=1, reason="ctr: +20 %")
    decision = decide(PLAN, promoting, observation())
    assert goes(decision) == ("success", "promoted", 1)
    assert decision.reason == "ctr: +20 %"


def test_a_promotion_waits_for_the_challenger_and_then_halts() -> None:
    promoting = state("promoting", step=1)
    seen = observation(versions_ready=False)
    assert goes(decide(PLAN, promoting, seen)) == ("waiting", "promoting", 1)
    late = replace(seen, seconds_in_step=901.0)
    assert goes(decide(PLAN, promoting, late)) == ("inconclusive", "paused", 1)


def test_a_promotion_is_watched_for_its_minimum_time() -> None:
    watched = plan(promotion={"min_seconds": 501})
    promoting = state("promoting", step=1)
    assert goes(decide(watched, promoting, observation())) == ("waiting", "promoting", 1)


@pytest.mark.parametrize(
    "ill",
    [
        {"health": challenger(errors=200)},
        {"totals": WORSE},
        {"double_exposed": 3},
        {"totals": LOST},
    ],
)
def test_a_failure_while_promoting_halts_and_does_not_roll_back(ill: dict[str, object]) -> None:
    promoting = state("promoting", step=1)
    decision = decide(PLAN, promoting, observation(**ill))
    assert goes(decision) == ("failure", "paused", 1)
    held = next_state(promoting, decision, AT)
    assert held.resumes_to == "promoting"
    assert decide(PLAN, held, observation(**ill)).phase == "paused"


@pytest.mark.parametrize("begun", ["by hand", "resumed"])
def test_what_a_person_accepts_halts_no_promotion(begun: str) -> None:
    if begun == "by hand":
        promoting = command("promote", PLAN, state("ramp", step=0), AT)
    else:
        first = state("promoting", step=1)
        held = next_state(first, decide(PLAN, first, observation(totals=WORSE)), AT)
        promoting = command("resume", PLAN, held, AT)
    assert decide(PLAN, promoting, observation(totals=WORSE)).phase == "promoted"
    # Nobody has accepted these.
    for ill in ({"health": challenger(errors=200)}, {"double_exposed": 3}):
        assert decide(PLAN, promoting, observation(totals=WORSE, **ill)).phase == "paused"


def test_who_resumes_from_a_broken_guardrail_has_accepted_no_metric() -> None:
    """The reason told of the guardrail alone, though a metric was worse as well."""
    first = state("promoting", step=1)
    ill = observation(totals=WORSE, health=challenger(errors=200))
    held = next_state(first, decide(PLAN, first, ill), AT)
    assert "error_rate" in held.reason
    again = command("resume", PLAN, held, AT)
    decision = decide(PLAN, again, observation(totals=WORSE))
    assert decision.phase == "paused"
    assert "worse" in decision.reason


def test_what_was_accepted_for_a_promotion_still_ends_a_ramp() -> None:
    ramp = state("ramp", step=0, accepted=tuple(one.metric for one in PLAN.success))
    assert decide(PLAN, ramp, observation(totals=WORSE)).phase == "rolling_back"
