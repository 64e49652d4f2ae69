"""What is decided in the ramp, as scenarios."""

import math
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from newshelf.rollout.decide import decide, describe, next_state
from newshelf.rollout.history import metric_table
from newshelf.rollout.metric_results import measure_all
from newshelf.rollout.operations import command
from newshelf.store.records import Observation
from tests.unit.rollout.conftest import (
    AT,
    EQUAL,
    LAST,
    NO_TRAFFIC,
    PLAN,
    WORSE,
    challenger,
    goes,
    health,
    observation,
    plan,
    state,
    totals,
)


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


def doing(metric: str, control: int, challenger: int, units: int = 2000) -> Observation:
    """As many units of each variant did it, once each; all else is alike."""
    column = {"ctr": "clicks", "cvr": "purchases", "revenue_per_unit": "revenue", "ndcg": "ndcg"}
    sides = {}
    for seed, (side, did) in enumerate({"control": control, "challenger": challenger}.items()):
        active = np.zeros(units)
        active[:did] = 1
        sides[side] = totals(units, seed=seed, **{column[metric]: active})
    return observation(totals=sides)


@pytest.mark.parametrize("metric", ["ctr", "cvr", "revenue_per_unit", "ndcg"])
@pytest.mark.parametrize("step", [0, 1])
def test_silence_is_not_harmless(metric: str, step: int) -> None:
    """A silent challenger is worse; a silent control, or both, is a fault of the measurement."""
    rule = plan(success=[{"metric": metric, "minimum_effect": 0.1}])
    at = state("ramp", step=step)
    worse = decide(rule, at, doing(metric, 40, 0))
    assert goes(worse) == ("failure", "rolling_back", step)
    assert "0 of 2000 for the challenger, 40 of 2000 for control" in worse.reason
    odd = decide(rule, at, doing(metric, 0, 40))
    assert goes(odd) == ("no_data", "paused", step)
    assert "control is silent" in odd.reason
    nothing = decide(rule, at, doing(metric, 0, 0))
    assert goes(nothing) == ("no_data", "paused", step)
    assert f"no feedback for {metric}" in nothing.reason


def test_one_silent_metric_of_two_is_enough() -> None:
    success = [
        {"metric": "ctr", "minimum_effect": 0.1},
        {"metric": "cvr", "minimum_effect": 0.3},
    ]
    rare = plan(success=success)
    assert decide(rare, state("ramp"), doing("cvr", 40, 0)).phase == "rolling_back"
    assert goes(decide(rare, state("ramp"), doing("cvr", 0, 0))) == ("no_data", "paused", 0)


@pytest.mark.parametrize(("buyers", "phase"), [(12, "ramp"), (13, "rolling_back")])
def test_counts_have_a_tenth_of_the_level_of_their_metric(buyers: int, phase: str) -> None:
    """Of 5 % for two metrics, a tenth for counts, half of it for fewer: 1/800.

    Each buyer is control's by a coin, so k buyers and none are 2·(2^k - 1/2)/(k + 1) to 1.
    """
    two = [{"metric": name, "minimum_effect": 0.3} for name in ("ctr", "cvr")]
    assert decide(plan(success=two), LAST, doing("cvr", buyers, 0)).phase == phase


def test_a_silent_challenger_goes_no_further_while_it_may_be_chance() -> None:
    """Five buyers and none: a coin does that. The step waits for more, and pauses in the end."""
    rule = plan(success=[{"metric": "cvr", "minimum_effect": 0.3}])
    seen = doing("cvr", 5, 0)
    assert goes(decide(rule, state("ramp"), seen)) == ("waiting", "ramp", 0)
    late = replace(seen, seconds_in_step=601.0)
    assert goes(decide(rule, state("ramp"), late)) == ("inconclusive", "paused", 0)
    # A few in both are no reason to wait in a small step.
    assert goes(decide(rule, state("ramp"), doing("cvr", 5, 3))) == ("success", "ramp", 1)
    assert goes(decide(rule, LAST, doing("cvr", 5, 3))) == ("waiting", "ramp", 1)


def test_a_handful_against_thousands_is_worse() -> None:
    rule = plan(success=[{"metric": "cvr", "minimum_effect": 0.3}])
    assert decide(rule, LAST, doing("cvr", 500, 20)).phase == "rolling_back"
    # Too few for an interval, so more is not yet better.
    assert goes(decide(rule, LAST, doing("cvr", 20, 500))) == ("waiting", "ramp", 1)
    falling = plan(success=[{"metric": "cvr", "minimum_effect": 0.3, "direction": "decrease"}])
    assert decide(falling, LAST, doing("cvr", 20, 500)).phase == "rolling_back"
    assert goes(decide(falling, LAST, doing("cvr", 500, 0))) == ("no_data", "paused", 1)


def test_a_margin_is_kept_by_counts_too() -> None:
    seen = doing("cvr", 29, 4)
    rule = plan(success=[{"metric": "cvr", "minimum_effect": 0.3}])
    assert decide(rule, LAST, seen).phase == "rolling_back"
    lenient = plan(success=[{"metric": "cvr", "minimum_effect": 0.3, "margin": 0.45}])
    assert decide(lenient, LAST, seen).phase == "ramp"


def test_lost_units_send_everybody_back_to_control() -> None:
    seen = observation(totals={"control": totals(seed=1), "challenger": totals(1700, seed=2)})
    decision = decide(PLAN, LAST, seen)
    assert goes(decision) == ("failure", "rolling_back", 1)
    assert "sample-ratio mismatch: 2000 " in decision.reason


def test_shoppers_who_come_back_more_often_are_no_mismatch() -> None:
    """As many were assigned since the rollout began; in this step, more of them came back."""
    seen = observation(totals=EQUAL, health=challenger(units=1300))
    assert goes(decide(PLAN, state("ramp"), seen)) == ("success", "ramp", 1)


def test_lost_units_of_an_interleaving_challenger_are_missed() -> None:
    mixed = plan(interleaving=True, success=[{"metric": "preference", "minimum_effect": 0.05}])
    both = {"control": totals(seed=1), "challenger": totals(0), "interleaved": totals(1700)}
    seen = observation(totals=both, health={"control": health(), "interleaved": health()})
    assert "sample-ratio mismatch" in decide(mixed, LAST, seen).reason


def test_a_unit_in_two_variants_sends_everybody_back_to_control() -> None:
    decision = decide(PLAN, LAST, observation(double_exposed=1))
    assert goes(decision) == ("failure", "rolling_back", 1)
    assert "double exposure: 1 units" in decision.reason


def test_a_signal_pauses_until_a_person_accepts_it() -> None:
    seen = observation(health=challenger(items={"hit": 2050}))
    decision = decide(PLAN, LAST, seen)
    assert goes(decision) == ("inconclusive", "paused", 1)
    assert decision.raised == ("coverage",)
    assert "coverage: 1 products where control has 50" in decision.reason
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
    clicks = random.poisson(1.0, 1000).astype(float)
    loses = replace(seen(1), credits={"control": clicks, "challenger": np.zeros(1000)})
    assert decide(both, LAST, loses).phase == "rolling_back"
    wins = replace(seen(1), credits={"control": np.zeros(1000), "challenger": clicks})
    assert goes(decide(both, LAST, wins)) == ("no_data", "paused", 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_a_metric_that_cannot_be_computed_hides_no_guardrail(value: float) -> None:
    """Half of the units spent more than a float can sum up."""
    broken = np.where(np.arange(2000) % 2, value, 1.0)
    rule = plan(success=[{"metric": "revenue_per_unit", "minimum_effect": 0.3}])
    sides = {side: totals(seed=seed, revenue=broken) for seed, side in enumerate(EQUAL)}
    seen = observation(totals=sides)
    decision = decide(rule, state("ramp"), seen)
    assert goes(decision) == ("waiting", "ramp", 0)
    assert "cannot be computed" in decision.reason
    late = replace(seen, seconds_in_step=601.0)
    assert goes(decide(rule, state("ramp"), late)) == ("inconclusive", "paused", 0)
    ill = replace(seen, health=challenger(errors=400))
    acted = decide(rule, state("ramp"), ill)
    assert goes(acted) == ("failure", "rolling_back", 0)
    assert acted.reason.startswith("error_rate")


@pytest.mark.parametrize("value", [1e6, 1e18, 1e308, math.inf])
def test_one_purchase_that_was_never_made_changes_nothing(value: float) -> None:
    rule = plan(success=[{"metric": "revenue_per_unit", "minimum_effect": 0.3}])
    sides = {"control": totals(4000, seed=1), "challenger": totals(4000, 0.05, seed=2)}
    assert decide(rule, LAST, observation(totals=sides)).phase == "rolling_back"
    sides["challenger"].revenue[7] = value
    decision = decide(rule, LAST, observation(totals=sides))
    assert decision.phase == "rolling_back"


def test_a_robot_hides_no_effect_and_is_named() -> None:
    sides = {"control": totals(seed=1), "challenger": totals(ctr=0.13, seed=2)}
    robot = sides["challenger"]
    robot.requests[5], robot.shown[5], robot.clicks[5] = 120_000, 1_200_000, 0
    ids = tuple(f"unit-{number}" for number in range(len(robot)))
    sides = {side: replace(one, units=ids) for side, one in sides.items()}
    decision = decide(PLAN, LAST, observation(totals=sides))
    assert decision.phase == "promoting"
    assert decision.analysis is not None
    (heavy,) = decision.analysis.heavy_units
    assert (heavy.unit, heavy.variant) == ("unit-5", "challenger")
    assert heavy.share > 0.9
    assert decision.analysis.metrics[0].capped > 0
    uncapped = decide(plan(cap_quantile=1), LAST, observation(totals=sides))
    assert uncapped.phase == "ramp"
    assert "a few units have most of it" in uncapped.reason


def test_no_absurd_number_is_printed() -> None:
    (ctr,) = measure_all(PLAN, observation())
    wide = replace(ctr, effect=-0.887, low=-1.0, high=7.9e26)
    assert describe(wide).startswith("ctr: -88.7 % (-100.0 to above +1000), ")
    tell = Mock(metrics=[replace(wide, high=math.inf)])
    assert metric_table("", tell).rows[0][4] == "-100.0% … above +1000%"


def test_robots_do_not_decide_while_there_are_few_shoppers() -> None:
    """Too few to be cut off by a quantile, and so heavy that the ratio is theirs alone."""
    sides = {"control": totals(300, seed=1), "challenger": totals(300, seed=2)}
    for side, clicks in (("control", 0), ("challenger", 300_000)):
        for place in (3, 4, 5):
            sides[side].requests[place], sides[side].shown[place] = 30_000, 300_000
            sides[side].clicks[place] = clicks
    for first, second in (("control", "challenger"), ("challenger", "control")):
        seen = observation(totals={"control": sides[first], "challenger": sides[second]})
        decision = decide(PLAN, LAST, seen)
        assert goes(decision) == ("waiting", "ramp", 1)
        assert "a few units have most of it" in decision.reason


def test_few_units_that_did_it_are_counted() -> None:
    few = {side: totals(20) for side in ("control", "challenger")}
    decision = decide(PLAN, LAST, observation(totals=few))
    assert decision.analysis is not None
    (ctr,) = decision.analysis.metrics
    assert ctr.verdict == "undecided"
    assert math.isnan(ctr.effect)
    assert "of 20 for the challenger" in ctr.reason
