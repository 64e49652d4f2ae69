"""What no observation, however odd, may bring about."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from newshelf.rollout.analysis import check_guardrails
from newshelf.rollout.decide import decide, next_state
from newshelf.rollout.history import snapshot_of
from newshelf.rollout.metrics import METRICS
from newshelf.rollout.plan import PHASES, Plan, RolloutState, split_of
from newshelf.store.records import Observation, UnitTotals, VariantHealth
from tests.unit.rollout.conftest import (
    AT,
    COUNTS,
    SHADOW,
    health,
    observation,
    plan,
    state,
    totals,
)

PLAN = plan()
TEAMS = ("control", "challenger")
ALLOWED = {
    "draft": {"draft"},
    "shadow": {"shadow", "ramp", "paused", "rolling_back"},
    "ramp": {"ramp", "promoting", "paused", "rolling_back"},
    "paused": {"paused", "rolling_back"},
    "promoting": {"promoting", "promoted", "paused"},
    "promoted": {"promoted"},
    "rolling_back": {"rolled_back"},
    "rolled_back": {"rolled_back"},
    "aborted": {"aborted"},
}


@lru_cache
def some_totals(ctr: float, units: int, seed: int):
    return totals(units, ctr, seed=seed)


@st.composite
def healths(draw: st.DrawFn) -> VariantHealth:
    requests = draw(st.sampled_from([0, 1, 30, 400, 3000]))
    counts = st.sampled_from([0.0, 0.001, 0.02, 0.3, 1.0]).map(
        lambda share: round(share * requests)
    )
    slowest = draw(st.sampled_from([50.0, 240.0, 2000.0]))
    return health(
        requests,
        errors=draw(counts),
        fallbacks=draw(counts),
        empty=draw(counts),
        latencies_ms=np.linspace(1, slowest, requests),
        items={str(item): 60 for item in range(draw(st.sampled_from([0, 1, 50])))},
        units=draw(st.sampled_from([0, 50, 480, 500])),
    )


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    sides = {}
    for seed, side in enumerate(("control", "challenger")):
        if draw(st.integers(0, 9)):
            ctr = draw(st.sampled_from([0.0, 0.07, 0.1, 0.14]))
            sides[side] = some_totals(ctr, draw(st.sampled_from([2, 40, 1500])), seed)
    return observation(
        seconds_in_step=draw(st.sampled_from([0.0, 61.0, 130.0, 700.0, 5000.0])),
        totals=sides,
        health={
            side: draw(healths()) for side in ("control", "challenger") if draw(st.integers(0, 9))
        },
        double_exposed=draw(st.sampled_from([0, 0, 0, 0, 2])),
        shadow=draw(
            st.just({})
            | st.fixed_dictionaries(
                {name: st.sampled_from([0.0, value, 50 * value]) for name, value in SHADOW.items()}
            )
        ),
        versions_ready=draw(st.booleans()),
    )


@st.composite
def states(draw: st.DrawFn) -> RolloutState:
    phase = draw(st.sampled_from([*PHASES, "ramp", "ramp", "ramp"]))
    resumes = draw(st.sampled_from(["shadow", "ramp", "promoting"])) if phase == "paused" else None
    return state(
        phase,
        step=draw(st.integers(0, 1)),
        resumes_to=resumes,
        accepted=draw(st.sampled_from([(), ("coverage",)])),
    )


@settings(max_examples=400, deadline=None)
@given(states(), observations())
def test_whatever_is_observed(before: RolloutState, seen: Observation) -> None:
    decision = decide(PLAN, before, seen)
    after = next_state(before, decision, AT)
    assert decision.phase in ALLOWED[before.phase]
    assert decision.reason
    # Nothing depends on anything but the three arguments.
    again = decide(PLAN, before, seen)
    assert (again.phase, again.step, again.reason) == (
        decision.phase,
        decision.step,
        decision.reason,
    )
    assert after.revision == before.revision + (after is not before)
    # Steps are taken one by one, and never back.
    assert before.step <= after.step <= before.step + 1 or before.phase == "shadow"
    # Neither kind of ignorance goes on.
    if decision.outcome in ("inconclusive", "no_data"):
        assert after.phase == "paused"
    if decision.outcome == "failure" and before.phase == "promoting":
        assert after.phase == "paused"
    went_on = decision.outcome == "success"
    if went_on and before.phase in ("ramp", "promoting"):
        analysis = decision.analysis
        assert analysis is not None
        assert not any(one.failed for one in analysis.guardrails)
        assert not any(one.verdict == "worse" for one in analysis.metrics)
        assert not analysis.sample_ratio.mismatch
        assert analysis.double_exposed == 0
        assert seen.versions_ready
    if went_on and before.phase == "ramp":
        step = PLAN.ramp[before.step]
        assert seen.seconds_in_step >= step.min_seconds
        assert analysis.units >= step.min_units
        assert not any(one.raised and one.metric not in before.accepted for one in analysis.signals)
    if after.phase == "promoting" and before.phase == "ramp":
        assert before.step == len(PLAN.ramp) - 1
        assert all(one.verdict == "better" for one in analysis.metrics)
    # A rollout that failed leaves nobody with the challenger.
    if after.phase in ("rolling_back", "rolled_back", "aborted"):
        assert split_of(PLAN, after) is None


@settings(max_examples=50, deadline=None)
@given(states(), st.lists(observations(), min_size=1, max_size=6))
def test_what_has_ended_stays_ended(before: RolloutState, seen: list[Observation]) -> None:
    at = before
    ended = None
    for one in seen:
        at = next_state(at, decide(PLAN, at, one), AT)
        if ended:
            assert at.phase == ended
        if at.phase in ("promoted", "rolled_back", "aborted"):
            ended = at.phase


WILD = st.floats()
LIMITS = plan(
    success=[{"metric": name, "minimum_effect": 0.2} for name in METRICS],
    guardrails=[
        *(one.model_dump(exclude_none=True, exclude_unset=True) for one in PLAN.guardrails),
        {"metric": "p99_ms", "times_control": 1.5},
    ],
)
DRAFTED = plan(interleaving=True, success=[{"metric": "preference", "minimum_effect": 0.1}])


@st.composite
def wild_totals(draw: st.DrawFn) -> UnitTotals:
    """Ordinary shoppers, some columns of whom hold anything at all."""
    units = draw(st.sampled_from([0, 1, 2, 31, 300]))
    values = some_totals(0.1, units, draw(st.integers(0, 3)))
    columns = {name: getattr(values, name).copy() for name in COUNTS}
    before = {name: values.requests.copy() for name in COUNTS}
    for column in draw(st.lists(st.sampled_from([*columns.values(), *before.values()]))):
        spoilt = draw(st.sampled_from([0, 1, 40, units]))
        column[:spoilt] = draw(arrays(float, len(column[:spoilt]), elements=WILD, fill=WILD))
    return UnitTotals(**columns, before=before, units=tuple(map(str, range(units))))


@st.composite
def wild_observations(draw: st.DrawFn, other: str) -> Observation:
    sides = {side: draw(wild_totals()) for side in ("control", "challenger") if draw(st.booleans())}
    ill = {side: draw(healths()) for side in ("control", other)}
    for health_of in ill.values():
        latencies = health_of.latencies_ms
        latencies[: draw(st.integers(0, 40))] = draw(WILD)
    clicks = arrays(float, draw(st.sampled_from([0, 3, 60])), elements=WILD, fill=WILD)
    return observation(
        totals=sides,
        health=ill,
        credits=draw(st.just({}) | st.fixed_dictionaries(dict.fromkeys(TEAMS, clicks))),
    )


@pytest.mark.parametrize(("rule", "other"), [(LIMITS, "challenger"), (DRAFTED, "interleaved")])
@settings(max_examples=200, deadline=None)
@given(data=st.data(), phase=st.sampled_from(["ramp", "paused", "promoting"]))
def test_no_number_keeps_a_broken_guardrail_from_acting(
    rule: Plan, other: str, data: st.DataObject, phase: str
) -> None:
    before = state(phase, step=1, resumes_to="ramp" if phase == "paused" else None)
    seen = data.draw(wild_observations(other))
    decision = decide(rule, before, seen)
    guardrails = check_guardrails(rule, seen.health["control"], seen.health[other])
    broken = [one.metric for one in guardrails if one.failed]
    if broken:
        assert decision.outcome == "failure"
        assert decision.phase == ("paused" if phase == "promoting" else "rolling_back")
        assert broken[0] in decision.reason
    assert "nan" not in decision.reason
    assert snapshot_of(before, seen, decision).model_dump_json()
