"""What to do next: a pure function of plan, state and observation.

Reading what was observed, acting on the decision and keeping the state are elsewhere. Asked
twice with the same three, it answers the same.
"""

from datetime import datetime

from newshelf.rollout.analysis import Analysis, analyse
from newshelf.rollout.outcomes import Decision, go, pause, roll_back, stay
from newshelf.rollout.plan import Plan
from newshelf.rollout.reasons import (
    below_control,
    broken,
    described,
    limit_broken,
    missing_feedback,
    suspicious,
    unclear,
    worse,
)
from newshelf.rollout.shadowing import decide_shadow, shadow_failure
from newshelf.rollout.state import RolloutState
from newshelf.rollout.totals import Observation

__all__ = ["decide", "next_state"]


def decide(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    """Where the rollout goes from here.

    Args:
        plan: what was asked for.
        state: where it stands.
        observation: what came of it so far.
    """
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
            # Control has every unit from the moment on at which this phase began.
            return Decision("failure", "rolled_back", state.step, state.reason)
        case "draft" | "promoted" | "rolled_back" | "aborted":
            return stay(state, state.reason)


def next_state(state: RolloutState, decision: Decision, at: datetime) -> RolloutState:
    """The state after a decision; the same one if nothing changes.

    Args:
        state: from which the decision was made.
        decision: of :func:`decide`.
        at: now, with its time zone.
    """
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
    """What sends every unit back to control, the guardrails first."""
    harm = "; ".join(map(described, worse(analysis)))
    return _unacceptable(analysis) or harm or None


def _unacceptable(analysis: Analysis) -> str | None:
    """What no person can accept, unlike a metric that is worse.

    A broken assignment is such a thing, too. The challenger may be fine, but nobody can tell any
    more, and control is what was served before.
    """
    return limit_broken(analysis) or broken(analysis)


def _ramp(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    analysis = analyse(plan, observation)
    return (
        _stop(state, analysis)
        or _wait(plan, state, observation, analysis)
        or _advance(plan, state, analysis)
    )


def _stop(state: RolloutState, analysis: Analysis) -> Decision | None:
    """What is acted on at once, however young the step is."""
    if failure := _failure(analysis):
        return roll_back(state, failure, analysis)
    raised = [one for one in analysis.signals if one.raised and one.metric not in state.accepted]
    if raised:
        names = [one.metric for one in raised]
        return pause("inconclusive", state, below_control(raised), analysis, names)
    if silent := suspicious(analysis):
        return pause("no_data", state, "; ".join(map(described, silent)), analysis)
    return None


def _wait(
    plan: Plan, state: RolloutState, observation: Observation, analysis: Analysis
) -> Decision | None:
    """Stay while the step is not done; pause when its time is over."""
    step = plan.ramp[state.step]
    at = f"at {step.percent:g} %"
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
    found = "; ".join(map(described, analysis.metrics))
    if _is_last(plan, state):
        return go("promoting", state.step, found, analysis)
    done = f"at {plan.ramp[state.step].percent:g} %: no harm ({found})"
    return go("ramp", state.step + 1, done, analysis)


def _is_last(plan: Plan, state: RolloutState) -> bool:
    return state.step == len(plan.ramp) - 1


def _missing(analysis: Analysis, min_units: int) -> str | None:
    """Whether data do not come in at all, although they had the time to."""
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
    """Why the step is not done yet, or None."""
    min_units = plan.ramp[state.step].min_units
    if analysis.units < min_units:
        return f"{analysis.units} of {min_units} units in the smaller variant"
    if not observation.versions_ready:
        return "a version does not answer"
    is_open = unclear(analysis)
    if _is_last(plan, state):
        is_open = [one for one in analysis.metrics if one.verdict != "better"]
    return "; ".join(map(described, is_open)) or None


def _promoting(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    """Go on, or halt: rolling back would put everybody on what may be no healthier."""
    promotion = plan.promotion
    analysis = analyse(plan, observation)
    if failure := _unacceptable(analysis):
        return pause("failure", state, f"while promoting: {failure}", analysis)
    if harm := [one for one in worse(analysis) if one.metric not in state.accepted]:
        reason = f"while promoting: {'; '.join(map(described, harm))}"
        return pause("failure", state, reason, analysis, [one.metric for one in harm])
    if observation.seconds_in_step < promotion.min_seconds:
        return stay(state, "promoting: the minimum time is not over", analysis)
    if not observation.versions_ready:
        if observation.seconds_in_step < promotion.max_seconds:
            return stay(state, "promoting: a version does not answer yet", analysis)
        reason = "while promoting: a version did not answer when the time was over"
        return pause("inconclusive", state, reason, analysis)
    return go("promoted", state.step, state.reason, analysis)


def _paused(plan: Plan, state: RolloutState, observation: Observation) -> Decision:
    """Shoppers still see the challenger, so what would send them back still does."""
    if state.resumes_to == "shadow":
        failure = shadow_failure(plan, observation)
        return roll_back(state, failure) if failure else stay(state, state.reason)
    analysis = analyse(plan, observation)
    failure = _failure(analysis)
    if failure and state.resumes_to == "ramp":
        return roll_back(state, failure, analysis)
    return stay(state, state.reason, analysis)
