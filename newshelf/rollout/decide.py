"""The decision on a rollout: a pure function of plan, state and observation.

Reading observations, acting on decisions and storing states are the controller's. Equal arguments
give equal decisions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from newshelf.rollout.analysis import (
    Analysis,
    GuardrailResult,
    SignalResult,
    analyse,
    level_of,
    share_exceeds,
)
from newshelf.rollout.metric_results import MetricResult
from newshelf.rollout.plan import Phase, Plan, RolloutState, ShadowPlan
from newshelf.store.records import Observation

DecisionOutcome = Literal["waiting", "success", "failure", "inconclusive", "no_data"]
"""``waiting``: too early. ``inconclusive``: the time is over and the data do not decide.
``no_data``: no data arrived, so something other than the challenger is broken. The last two pause
the rollout: neither is a reason to advance or to roll back."""


@dataclass(frozen=True)
class Decision:
    """The next phase and step of a rollout, and the reason."""

    outcome: DecisionOutcome
    phase: Phase
    step: int
    reason: str
    """For people, with figures."""
    analysis: Analysis | None = None
    """Basis of the decision; None where nothing was analysed."""
    raised: tuple[str, ...] = ()
    """Signals that paused the rollout, or metrics that were worse."""


def stay(state: RolloutState, reason: str, analysis: Analysis | None = None) -> Decision:
    """Return the decision to wait."""
    return Decision("waiting", state.phase, state.step, reason, analysis)


def advance(phase: Phase, step: int, reason: str, analysis: Analysis | None = None) -> Decision:
    """Return the decision to advance to a phase and step."""
    return Decision("success", phase, step, reason, analysis)


def roll_back(state: RolloutState, reason: str, analysis: Analysis | None = None) -> Decision:
    """Return the decision to roll back: a failure, or a broken experiment."""
    return Decision("failure", "rolling_back", state.step, reason, analysis)


def pause(
    outcome: DecisionOutcome,
    state: RolloutState,
    reason: str,
    analysis: Analysis | None = None,
    raised: Sequence[str] = (),
) -> Decision:
    """Return the decision to pause until a person decides."""
    return Decision(outcome, "paused", state.step, reason, analysis, tuple(raised))


def shadow_failure(plan: Plan, observation: Observation) -> str | None:
    """Return why the challenger must not get traffic; None if it may."""
    shadow, seen = plan.shadow, observation.shadow
    requests = round(seen.get("requests", 0))
    if shadow is None or not requests:
        return None
    errors = round(seen["errors"])
    if share_exceeds(errors, requests, shadow.most_error_share, level_of(plan)):
        return (
            f"error_rate: {errors} of {requests} copies failed, "
            f"more than {shadow.most_error_share:.2%}"
        )
    low_ms = seen.get("p99_low_ms", -math.inf)
    if requests >= shadow.min_requests and low_ms > shadow.most_p99_ms:
        return (
            f"p99_ms: {seen['p99_ms']:.1f} ms for copies (at least {low_ms:.1f} ms), above "
            f"{shadow.most_p99_ms:g} ms"
        )
    return None


def decide_shadow(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    """Decide in the shadow phase.

    Errors and latency roll back; different answers pause; enough time and copies advance.
    """
    shadow = plan.shadow
    if shadow is None:
        return pause("no_data", state, "the plan has no shadow phase, but the rollout is in it")
    if failure := shadow_failure(plan, observation):
        return roll_back(state, failure)
    return _wait_for_copies(shadow, state, observation) or _compare(shadow, state, observation)


def _wait_for_copies(
    shadow: ShadowPlan, state: RolloutState, observation: Observation
) -> Decision | None:
    """Wait while there are too few copies to compare; pause when the time is over."""
    if observation.seconds_in_step < shadow.min_seconds:
        return stay(state, "in shadow: the minimum time is not over")
    requests = round(observation.shadow.get("requests", 0))
    raised: tuple[str, ...] = ()
    if not requests:
        return pause("no_data", state, "no copies were answered: traffic is probably missing")
    if requests < shadow.min_requests:
        obstacle = f"{requests} of {shadow.min_requests} copies"
    elif not observation.versions_ready:
        obstacle = "a version does not answer"
    elif "p99_ms" not in state.accepted and observation.shadow["p99_ms"] > shadow.most_p99_ms:
        # Significantly above the limit would be a failure. No shopper should find out.
        p99_ms, raised = observation.shadow["p99_ms"], ("p99_ms",)
        obstacle = f"p99_ms of {p99_ms:.1f} ms is above {shadow.most_p99_ms:g} ms, not surely"
    else:
        return None
    if observation.seconds_in_step < shadow.max_seconds:
        return stay(state, f"in shadow: {obstacle}")
    reason = f"in shadow: {obstacle} when the time was over"
    return pause("inconclusive", state, reason, raised=raised)


def _compare(shadow: ShadowPlan, state: RolloutState, observation: Observation) -> Decision:
    different = {
        name: text
        for name, text in _different(shadow, observation.shadow).items()
        if name not in state.accepted
    }
    if different:
        return pause("inconclusive", state, "; ".join(different.values()), raised=[*different])
    requests = round(observation.shadow["requests"])
    return advance("ramp", 0, f"in shadow: {requests} copies were answered within the limits")


def _different(shadow: ShadowPlan, seen: Mapping[str, float]) -> dict[str, str]:
    """Return differences from control that a person should check: they are no failure."""
    found = {}
    # Absent where no answer could be compared: no products, or equal scores.
    overlap, drift = seen.get("overlap", 1.0), seen.get("score_drift", 0.0)
    if overlap < shadow.least_overlap:
        found["overlap"] = (
            f"overlap: {overlap:.2f} of the products are the same, below {shadow.least_overlap:g}"
        )
    most = math.inf if shadow.most_score_drift is None else shadow.most_score_drift
    if drift > most:
        found["score_drift"] = f"score_drift: {drift:.2f} standard deviations, above {most:g}"
    return found


def decide(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    """Decide on a rollout in its current state by the data so far."""
    match state.phase:
        case "shadow":
            return decide_shadow(plan, state, observation)
        case "ramp":
            return _ramp(plan, state, observation)
        case "promoting":
            return _promoting(plan, state, observation)
        case "paused":
            return _paused(plan, state, observation)
        case "rolling_back":
            # Control has had every unit since this phase began.
            return Decision("failure", "rolled_back", state.step, state.reason)
        case "draft" | "promoted" | "rolled_back" | "aborted":
            return stay(state, state.reason)


def next_state(state: RolloutState, decision: Decision, at: datetime) -> RolloutState:
    """Return the state after a decision at ``at``; the same object if nothing changes."""
    if (decision.phase, decision.step) == (state.phase, state.step):
        return state
    return state.model_copy(
        update={
            "phase": decision.phase,
            "step": decision.step,
            "since": at,
            "reason": decision.reason,
            "revision": state.revision + 1,
            "resumes_to": state.phase if decision.phase == "paused" else None,
            "raised": decision.raised,
        }
    )


def _failure(analysis: Analysis) -> str | None:
    """Return why to roll back, guardrails first; None without a reason."""
    harm = "; ".join(map(describe, worse(analysis)))
    return _unacceptable(analysis) or harm or None


def _unacceptable(analysis: Analysis) -> str | None:
    """Return a reason that no person can accept, unlike a worse metric; None without one.

    It includes a broken assignment: the challenger may be fine, but the data cannot show it, and
    control was served before.
    """
    failed = [_guardrail(one) for one in analysis.guardrails if one.failed]
    return "; ".join(failed) or broken(analysis)


def _ramp(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    analysis = analyse(plan, observation)
    return (
        _stop(state, analysis)
        or _wait(plan, state, observation, analysis)
        or _advance(plan, state, analysis)
    )


def _stop(state: RolloutState, analysis: Analysis) -> Decision | None:
    """Roll back or pause at once, whatever the age of the step."""
    if failure := _failure(analysis):
        return roll_back(state, failure, analysis)
    raised = [one for one in analysis.signals if one.raised and one.metric not in state.accepted]
    if raised:
        names = [one.metric for one in raised]
        return pause("inconclusive", state, below_control(raised), analysis, names)
    # Silent in a variant, but not because it is worse.
    if silent := [one for one in analysis.metrics if one.verdict == "unknown" and one.silence]:
        return pause("no_data", state, "; ".join(map(describe, silent)), analysis)
    return None


def _wait(
    plan: Plan, state: RolloutState, observation: Observation, analysis: Analysis
) -> Decision | None:
    """Wait while the step is not complete; pause when its time is over."""
    step = plan.ramp[state.step]
    at = f"at {step.label}"
    if observation.seconds_in_step < step.min_seconds:
        return stay(state, f"{at}: the minimum time is not over", analysis)
    if missing := _missing(analysis, step.min_units):
        return pause("no_data", state, f"{at}: {missing}", analysis)
    obstacle = _obstacle(plan, state, observation, analysis)
    if obstacle is None:
        return None
    if observation.seconds_in_step < step.max_seconds:
        return stay(state, f"{at}: {obstacle}", analysis)
    return pause("inconclusive", state, f"{at}: {obstacle} when the time was over", analysis)


def _advance(plan: Plan, state: RolloutState, analysis: Analysis) -> Decision:
    found = "; ".join(map(describe, analysis.metrics))
    if _is_last(plan, state):
        return advance("promoting", state.step, found, analysis)
    done = f"at {plan.ramp[state.step].label}: no harm ({found})"
    return advance("ramp", state.step + 1, done, analysis)


def _is_last(plan: Plan, state: RolloutState) -> bool:
    return state.step == len(plan.ramp) - 1


def _missing(analysis: Analysis, min_units: int) -> str | None:
    if not analysis.requests:
        variants = {
            "control": analysis.control_requests,
            "the challenger": analysis.challenger_requests,
        }
        without = " and ".join(name for name, requests in variants.items() if not requests)
        return f"no request for {without}: traffic is probably missing"
    if analysis.units >= min_units:
        return missing_feedback(analysis)
    return None


def _obstacle(
    plan: Plan, state: RolloutState, observation: Observation, analysis: Analysis
) -> str | None:
    min_units = plan.ramp[state.step].min_units
    if analysis.units < min_units:
        return f"{analysis.units} of {min_units} units in the smaller variant"
    if not observation.versions_ready:
        return "a version does not answer"
    is_open = [one for one in analysis.metrics if one.verdict == "unknown" or one.silence]
    if _is_last(plan, state):
        is_open = [one for one in analysis.metrics if one.verdict != "better"]
    return "; ".join(map(describe, is_open)) or None


def _promoting(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    """Promote or pause; a rollback would move everybody to a version that may be no healthier."""
    promotion = plan.promotion
    analysis = analyse(plan, observation)
    if failure := _unacceptable(analysis):
        return pause("failure", state, f"while promoting: {failure}", analysis)
    if harm := [one for one in worse(analysis) if one.metric not in state.accepted]:
        reason = f"while promoting: {'; '.join(map(describe, harm))}"
        return pause("failure", state, reason, analysis, [one.metric for one in harm])
    if observation.seconds_in_step < promotion.min_seconds:
        return stay(state, "promoting: the minimum time is not over", analysis)
    if not observation.versions_ready:
        if observation.seconds_in_step < promotion.max_seconds:
            return stay(state, "promoting: a version does not answer yet", analysis)
        reason = "while promoting: a version did not answer when the time was over"
        return pause("inconclusive", state, reason, analysis)
    return advance("promoted", state.step, state.reason, analysis)


def _paused(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    """Roll back as in the interrupted phase: shoppers still see the challenger."""
    if state.resumes_to == "shadow":
        failure = shadow_failure(plan, observation)
        return roll_back(state, failure) if failure else stay(state, state.reason)
    analysis = analyse(plan, observation)
    failure = _failure(analysis)
    if failure and state.resumes_to == "ramp":
        return roll_back(state, failure, analysis)
    return stay(state, state.reason, analysis)


MAX_EFFECT = 10.0
"""Largest effect that is printed (+1000 %): a wider interval means that nothing is known yet."""
UNKNOWN = "–"


def broken(analysis: Analysis) -> str | None:
    """Return why the experiment is invalid; None if it is valid."""
    if analysis.double_exposed:
        return (
            f"double exposure: {analysis.double_exposed} units were seen in two variants, "
            "so assignment is broken"
        )
    ratio = analysis.sample_ratio
    if ratio.mismatch:
        return (
            f"sample-ratio mismatch: {ratio.control} units in control and {ratio.challenger} in "
            f"the challenger cannot be halves of one crowd (p = {ratio.sequential_p:.1e})"
        )
    return None


def worse(analysis: Analysis) -> list[MetricResult]:
    """Return the success metrics that are significantly worse."""
    return [one for one in analysis.metrics if one.verdict == "worse"]


def describe(result: MetricResult) -> str:
    """Return a metric with its confidence sequence or its counts."""
    if result.reason:
        return f"{result.metric}: {result.reason}, {result.verdict}"
    unit = "points of the clicks" if result.metric == "preference" else "%"
    effect, low, high = (percent(value) for value in (result.effect, result.low, result.high))
    return f"{result.metric}: {effect} {unit} ({low} to {high}), {result.verdict}"


def percent(effect: float) -> str:
    """Return an effect in per cent without the unit, capped at ``MAX_EFFECT``."""
    most = 100 * MAX_EFFECT
    return f"{100 * effect:+.1f}" if effect <= MAX_EFFECT else f"above +{most:g}"


def below_control(raised: Sequence[SignalResult]) -> str:
    """Return the triggered signals in words."""
    return "; ".join(
        f"{one.metric}: {one.challenger:.0f} products where control has {one.control:.0f}, "
        f"below {one.least_of_control:.0%} of it"
        for one in raised
    )


def missing_feedback(analysis: Analysis) -> str | None:
    """Return the success metrics without feedback in either variant; None if all have some."""
    names = [one.metric for one in analysis.metrics if one.silence == "both"]
    if not names:
        return None
    return f"no feedback for {', '.join(names)} in either variant: is it sent?"


def guardrail_value(metric: str, value: float) -> str:
    """Return a guardrail's value with its unit: milliseconds or per cent."""
    if metric == "p99_ms":
        return format_number(value, ".1f") + " ms"
    return format_number(value, ".2%")


def format_number(value: float, form: str) -> str:
    """Return a number by a format specification; ``UNKNOWN`` if it is not finite."""
    return format(value, form) if math.isfinite(value) else UNKNOWN


def _guardrail(one: GuardrailResult) -> str:
    measured, low, allowed = (
        guardrail_value(one.metric, value) for value in (one.challenger, one.low, one.allowed)
    )
    return f"{one.metric}: {measured} (at least {low}), allowed is {allowed}"
