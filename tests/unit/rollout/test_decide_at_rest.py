"""What is decided of rollouts that are paused or over, and how the state follows."""

from datetime import timedelta

import pytest

from newshelf.rollout.decide import decide, next_state
from newshelf.rollout.operations import command
from newshelf.rollout.plan import draft, split_of
from tests.unit.rollout.conftest import (
    AT,
    EQUAL,
    LAST,
    PLAN,
    WORSE,
    challenger,
    goes,
    observation,
    shadowed,
    state,
)


def test_a_paused_ramp_is_still_guarded() -> None:
    held = state("paused", step=1, resumes_to="ramp")
    assert goes(decide(PLAN, held, observation())) == ("waiting", "paused", 1)
    ill = observation(health=challenger(errors=200))
    assert goes(decide(PLAN, held, ill)) == ("failure", "rolling_back", 1)
    assert decide(PLAN, held, observation(totals=WORSE)).phase == "rolling_back"


def test_a_paused_shadow_is_still_guarded() -> None:
    held = state("paused", resumes_to="shadow")
    assert decide(PLAN, held, shadowed()).phase == "paused"
    assert decide(PLAN, held, shadowed(errors=300)).phase == "rolling_back"


def test_rolling_back_ends_rolled_back_with_its_reason() -> None:
    back = state("rolling_back", step=1, reason="error_rate: 9 %")
    decision = decide(PLAN, back, observation(versions_ready=False))
    assert goes(decision) == ("failure", "rolled_back", 1)
    assert decision.reason == "error_rate: 9 %"


@pytest.mark.parametrize("phase", ["draft", "promoted", "rolled_back", "aborted"])
def test_what_is_at_rest_stays_at_rest(phase: str) -> None:
    ill = observation(health=challenger(errors=2000), double_exposed=5)
    assert decide(PLAN, state(phase), ill).phase == phase


def test_next_state_changes_once_and_counts_it() -> None:
    later = AT + timedelta(minutes=5)
    stays = next_state(LAST, decide(PLAN, LAST, observation(totals=EQUAL)), later)
    assert stays is LAST
    goes_on = next_state(LAST, decide(PLAN, LAST, observation()), later)
    assert (goes_on.phase, goes_on.since, goes_on.revision) == ("promoting", later, 1)


def test_a_whole_rollout_from_draft_to_promoted() -> None:
    at, phases = draft("rings", "pepper", AT), []
    at = command("start", PLAN, at, AT)
    shares = []
    while at.phase not in ("promoted", "paused"):
        phases.append((at.phase, at.step))
        split = split_of(PLAN, at)
        assert split is not None
        shares.append(split.share)
        seen = shadowed() if at.phase == "shadow" else observation()
        at = next_state(at, decide(PLAN, at, seen), AT)
    assert phases == [("shadow", 0), ("ramp", 0), ("ramp", 1), ("promoting", 1)]
    assert shares == [0, 0.1, 0.5, 0.5]
    assert at.revision == 5
    assert split_of(PLAN, at) is None
