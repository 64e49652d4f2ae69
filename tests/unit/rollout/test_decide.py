"""Every transition, as a scenario."""

import math
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest

from newshelf.errors import RolloutError
from newshelf.rollout.commands import command
from newshelf.rollout.decide import decide, next_state
from newshelf.rollout.outcomes import Decision
from newshelf.rollout.state import PHASES, RUNNING, RolloutState, draft, split_of
from newshelf.rollout.totals import Observation
from tests.unit.rollout.conftest import (
    AT,
    challenger,
    health,
    observation,
    plan,
    shadowed,
    state,
    totals,
)

PLAN = plan()
LAST = state("ramp", step=1)
EQUAL = {"control": totals(seed=1), "challenger": totals(seed=2)}
WORSE = {"control": totals(seed=1), "challenger": totals(ctr=0.07, seed=2)}
NO_TRAFFIC = {
    side: health(0, latencies_ms=np.empty(0), items={}, units=0)
    for side in ("control", "challenger")
}


def goes(decision: Decision) -> tuple[str, str, int]:
    return decision.outcome, decision.phase, decision.step


# In shadow.


def test_a_shadow_within_its_limits_starts_the_ramp() -> None:
    assert goes(decide(PLAN, state("shadow"), shadowed())) == ("success", "ramp", 0)


def test_a_shadow_runs_for_its_minimum_time() -> None:
    seen = replace(shadowed(), seconds_in_step=59.0)
    assert goes(decide(PLAN, state("shadow"), seen)) == ("waiting", "shadow", 0)


def test_a_shadow_with_errors_is_rolled_back_at_once() -> None:
    seen = replace(shadowed(requests=50, errors=30), seconds_in_step=1.0)
    decision = decide(PLAN, state("shadow"), seen)
    assert goes(decision) == ("failure", "rolling_back", 0)
    assert decision.reason == "error_rate: 30 of 50 copies failed, more than 2.00%"


def test_a_shadow_with_a_single_error_goes_on() -> None:
    assert decide(PLAN, state("shadow"), shadowed(errors=1)).phase == "ramp"


def test_a_slow_shadow_is_rolled_back() -> None:
    decision = decide(PLAN, state("shadow"), shadowed(p99_ms=300.0))
    assert goes(decision) == ("failure", "rolling_back", 0)
    assert "p99_ms: 300.0 ms for copies, above 200 ms" in decision.reason


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


# In the ramp.


def test_a_step_without_harm_leads_to_the_next() -> None:
    seen = observation(totals=EQUAL)
    assert goes(decide(PLAN, state("ramp"), seen)) == ("success", "ramp", 1)


def test_a_better_challenger_is_promoted_after_the_last_step() -> None:
    decision = decide(PLAN, LAST, observation())
    assert goes(decision) == ("success", "promoting", 1)
    assert decision.reason.startswith("ctr: +")
    assert decision.reason.endswith("better")


def test_a_better_challenger_still_goes_through_every_step() -> None:
    assert goes(decide(PLAN, state("ramp"), observation())) == ("success", "ramp", 1)


def test_an_equal_challenger_waits_in_the_last_step_and_then_pauses() -> None:
    seen = observation(totals=EQUAL)
    assert goes(decide(PLAN, LAST, seen)) == ("waiting", "ramp", 1)
    decision = decide(PLAN, LAST, replace(seen, seconds_in_step=1201.0))
    assert goes(decision) == ("inconclusive", "paused", 1)
    assert "undecided when the time was over" in decision.reason


def test_an_equal_challenger_succeeds_where_the_plan_has_a_margin() -> None:
    success = [{"metric": "ctr", "minimum_effect": 0.1, "margin": 0.15}]
    decision = decide(plan(success=success), LAST, observation(totals=EQUAL))
    assert goes(decision) == ("success", "promoting", 1)


def test_a_step_runs_for_its_minimum_time_however_good_the_challenger_is() -> None:
    seen = observation(seconds_in_step=119.0)
    assert goes(decide(PLAN, LAST, seen)) == ("waiting", "ramp", 1)


def test_a_step_needs_its_minimum_units_in_both_variants() -> None:
    seen = observation(health={"control": health(), "challenger": health(2000, units=960)})
    assert decide(PLAN, LAST, seen).phase == "promoting"
    many = plan(ramp=[{**PLAN.ramp[0].model_dump(), "min_units": 961}])
    decision = decide(many, state("ramp"), seen)
    assert goes(decision) == ("waiting", "ramp", 0)
    assert "960 of 961 units" in decision.reason
    late = replace(seen, seconds_in_step=601.0)
    assert goes(decide(many, state("ramp"), late)) == ("inconclusive", "paused", 0)


def test_a_worse_challenger_is_rolled_back_before_the_minimum_time() -> None:
    seen = observation(totals=WORSE, seconds_in_step=1.0)
    decision = decide(PLAN, state("ramp"), seen)
    assert goes(decision) == ("failure", "rolling_back", 0)
    assert decision.reason.startswith("ctr: -")
    assert decision.reason.endswith("worse")


def test_one_worse_metric_of_two_is_enough() -> None:
    success = [
        {"metric": "ctr", "minimum_effect": 0.1},
        {"metric": "revenue_per_unit", "minimum_effect": 0.3},
    ]
    poor = replace(totals(ctr=0.13, seed=2), revenue=totals(ctr=0.04, seed=3).revenue)
    seen = observation(totals={"control": totals(seed=1), "challenger": poor})
    decision = decide(plan(success=success), LAST, seen)
    assert goes(decision) == ("failure", "rolling_back", 1)
    assert "revenue_per_unit" in decision.reason
    assert "ctr" not in decision.reason


def test_both_metrics_of_two_must_be_better() -> None:
    success = [
        {"metric": "ctr", "minimum_effect": 0.1},
        {"metric": "cvr", "minimum_effect": 0.3},
    ]
    same = replace(totals(ctr=0.13, seed=2), purchases=totals(seed=1).purchases)
    seen = observation(totals={"control": totals(seed=1), "challenger": same})
    decision = decide(plan(success=success), LAST, seen)
    assert goes(decision) == ("waiting", "ramp", 1)
    assert "cvr" in decision.reason


def test_where_less_is_better_more_is_worse() -> None:
    success = [{"metric": "ctr", "minimum_effect": 0.1, "direction": "decrease"}]
    falling = plan(success=success)
    assert decide(falling, LAST, observation(totals=WORSE)).phase == "promoting"
    assert decide(falling, LAST, observation()).phase == "rolling_back"


@pytest.mark.parametrize(
    ("ill", "name"),
    [
        ({"errors": 200}, "error_rate"),
        ({"latencies_ms": np.linspace(50, 900, 2000)}, "p99_ms"),
        ({"empty": 300}, "empty_share"),
        ({"fallbacks": 400}, "fallback_share"),
    ],
)
def test_a_broken_guardrail_rolls_back_at_once(ill: dict[str, object], name: str) -> None:
    seen = observation(health=challenger(**ill), seconds_in_step=1.0)
    decision = decide(PLAN, LAST, seen)
    assert goes(decision) == ("failure", "rolling_back", 1)
    assert decision.reason.startswith(f"{name}: ")
    assert "allowed is" in decision.reason


def test_no_requests_pause_and_say_that_traffic_is_missing() -> None:
    seen = observation(health=NO_TRAFFIC, totals={})
    decision = decide(PLAN, state("ramp"), seen)
    assert goes(decision) == ("no_data", "paused", 0)
    assert decision.reason.endswith(
        "no request for control and the challenger: traffic is probably missing"
    )
    early = replace(seen, seconds_in_step=1.0)
    assert goes(decide(PLAN, state("ramp"), early)) == ("waiting", "ramp", 0)


def test_no_requests_for_one_variant_pause() -> None:
    one = {"control": health(10, units=5), "challenger": NO_TRAFFIC["challenger"]}
    decision = decide(PLAN, state("ramp"), observation(health=one, totals={}))
    assert goes(decision) == ("no_data", "paused", 0)
    assert "no request for the challenger" in decision.reason


def test_no_feedback_at_all_pauses() -> None:
    silent = {side: totals(clicks=np.zeros(2000)) for side in ("control", "challenger")}
    decision = decide(PLAN, state("ramp"), observation(totals=silent))
    assert goes(decision) == ("no_data", "paused", 0)
    assert "no feedback for ctr in either variant" in decision.reason


def test_purchases_that_are_still_missing_do_not_pause() -> None:
    success = [
        {"metric": "ctr", "minimum_effect": 0.1},
        {"metric": "cvr", "minimum_effect": 0.3},
    ]
    early = {
        side: totals(purchases=np.zeros(2000), seed=seed)
        for seed, side in enumerate(("control", "challenger"))
    }
    rare, seen = plan(success=success), observation(totals=early)
    assert goes(decide(rare, state("ramp"), seen)) == ("success", "ramp", 1)
    assert goes(decide(rare, LAST, seen)) == ("waiting", "ramp", 1)


def test_lost_units_send_everybody_back_to_control() -> None:
    seen = observation(health=challenger(units=700))
    decision = decide(PLAN, LAST, seen)
    assert goes(decision) == ("failure", "rolling_back", 1)
    assert "sample-ratio mismatch: 1000 units in control and 700" in decision.reason


def test_a_unit_in_two_variants_sends_everybody_back_to_control() -> None:
    decision = decide(PLAN, LAST, observation(double_exposed=1))
    assert goes(decision) == ("failure", "rolling_back", 1)
    assert "double exposure: 1 units" in decision.reason


def test_a_signal_pauses_until_a_person_accepts_it() -> None:
    seen = observation(health=challenger(items={"hit": 2050}))
    decision = decide(PLAN, LAST, seen)
    assert goes(decision) == ("inconclusive", "paused", 1)
    assert decision.raised == ("coverage",)
    assert "coverage: 1 products where control has 50, below 70% of it" in decision.reason
    held = next_state(LAST, decision, AT)
    assert decide(PLAN, held, seen).phase == "paused"
    resumed = command("resume", PLAN, held, AT)
    assert resumed.accepted == ("coverage",)
    assert decide(PLAN, resumed, seen).phase == "promoting"


def test_a_challenger_that_does_not_answer_is_not_promoted() -> None:
    seen = observation(versions_ready=False)
    assert goes(decide(PLAN, LAST, seen)) == ("waiting", "ramp", 1)
    late = replace(seen, seconds_in_step=1201.0)
    assert goes(decide(PLAN, LAST, late)) == ("inconclusive", "paused", 1)


def test_interleaved_rankings_are_judged_by_preference() -> None:
    both = plan(
        interleaving=True, success=[{"metric": "preference", "minimum_effect": 0.1}], signals=[]
    )
    random = np.random.default_rng(3)

    def seen(mean: float) -> Observation:
        return observation(
            totals={},
            health={"control": health(), "interleaved": health()},
            credits={
                "control": random.poisson(1.0, 1000).astype(float),
                "challenger": random.poisson(mean, 1000).astype(float),
            },
        )

    assert decide(both, LAST, seen(1.6)).phase == "promoting"
    assert decide(both, LAST, seen(0.6)).phase == "rolling_back"
    assert decide(both, LAST, seen(1.0)).phase == "ramp"
    ill = replace(seen(1.6), health={"control": health(), "interleaved": health(errors=300)})
    assert "error_rate" in decide(both, LAST, ill).reason
    silent = replace(seen(1), credits={team: np.zeros(9) for team in ("control", "challenger")})
    assert goes(decide(both, LAST, silent)) == ("no_data", "paused", 1)


# Promotion.


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
        {"health": challenger(units=100)},
    ],
)
def test_a_failure_while_promoting_halts_and_does_not_roll_back(ill: dict[str, object]) -> None:
    promoting = state("promoting", step=1)
    decision = decide(PLAN, promoting, observation(**ill))
    assert goes(decision) == ("failure", "paused", 1)
    held = next_state(promoting, decision, AT)
    assert held.resumes_to == "promoting"
    assert decide(PLAN, held, observation(**ill)).phase == "paused"


# Paused, and at rest.


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


# What a person may do.


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("start", {"phase": "draft"}, "shadow"),
        ("pause", {"phase": "shadow"}, "paused"),
        ("pause", {"phase": "ramp"}, "paused"),
        ("pause", {"phase": "promoting"}, "paused"),
        ("resume", {"phase": "paused", "resumes_to": "ramp"}, "ramp"),
        ("resume", {"phase": "paused", "resumes_to": "shadow"}, "shadow"),
        ("resume", {"phase": "paused", "resumes_to": "promoting"}, "promoting"),
        ("promote", {"phase": "ramp"}, "promoting"),
        ("promote", {"phase": "paused", "resumes_to": "ramp"}, "promoting"),
        ("abort", {"phase": "draft"}, "aborted"),
        ("abort", {"phase": "ramp"}, "aborted"),
        ("abort", {"phase": "paused", "resumes_to": "promoting"}, "aborted"),
        ("abort", {"phase": "promoted"}, "rolling_back"),
    ],
)
def test_commands(name: str, before: dict[str, str], after: str) -> None:
    changed = command(name, PLAN, state(**before), AT + timedelta(1))
    assert changed.phase == after
    assert (changed.revision, changed.since) == (1, AT + timedelta(1))
    assert (changed.resumes_to is not None) == (after == "paused")


def test_without_a_shadow_phase_the_ramp_starts_at_once() -> None:
    assert command("start", plan(shadow=None), state("draft"), AT).phase == "ramp"


@pytest.mark.parametrize(
    ("name", "before", "told"),
    [
        ("start", {"phase": "ramp"}, "cannot start rings: it is ramp; start is for draft"),
        ("resume", {"phase": "ramp"}, "resume is for paused"),
        ("pause", {"phase": "paused", "resumes_to": "ramp"}, "it is paused in ramp"),
        ("abort", {"phase": "rolled_back"}, "cannot abort"),
        ("promote", {"phase": "shadow"}, "no shopper has seen the challenger yet"),
        ("promote", {"phase": "paused", "resumes_to": "shadow"}, "no shopper has seen"),
        ("promote", {"phase": "draft"}, "promote is for ramp, paused"),
    ],
)
def test_commands_that_do_not_fit_are_refused(name: str, before: dict[str, str], told: str) -> None:
    with pytest.raises(RolloutError) as raised:
        command(name, PLAN, state(**before), AT)
    assert told in raised.value.message


# The split.


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


def test_an_unknown_metric_is_told_as_such() -> None:
    few = {side: totals(20) for side in ("control", "challenger")}
    decision = decide(PLAN, LAST, observation(totals=few))
    assert decision.analysis is not None
    (ctr,) = decision.analysis.metrics
    assert ctr.verdict == "unknown"
    assert math.isnan(ctr.effect)
    assert "ctr: too few units that did it" in decision.reason
