"""How a state splits the shoppers."""

from itertools import pairwise

import pytest

from newshelf.rollout.operations import command
from newshelf.rollout.state import PHASES, RUNNING, RolloutState, split_of
from tests.unit.rollout.conftest import (
    AT,
    PLAN,
    plan,
    state,
)


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
