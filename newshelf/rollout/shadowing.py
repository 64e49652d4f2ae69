"""The decision while the challenger is only sent copies."""

import math
from collections.abc import Mapping

from newshelf.rollout.guardrails import level_of, share_exceeds
from newshelf.rollout.outcomes import Decision, go, pause, roll_back, stay
from newshelf.rollout.plan import Plan, Shadow
from newshelf.rollout.state import RolloutState
from newshelf.rollout.totals import Observation

__all__ = ["decide_shadow", "shadow_failure"]


def shadow_failure(plan: Plan, observation: Observation) -> str | None:
    """Why the challenger must not see a shopper, or None."""
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
    """Roll back on errors and slowness, pause on other answers, go on after time and number."""
    shadow = plan.shadow
    if shadow is None:
        return pause("no_data", state, "the plan has no shadow phase, but the rollout is in it")
    if failure := shadow_failure(plan, observation):
        return roll_back(state, failure)
    return _wait(shadow, state, observation) or _compare(shadow, state, observation)


def _wait(shadow: Shadow, state: RolloutState, observation: Observation) -> Decision | None:
    """Stay while there is too little to compare; pause when the time is over."""
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
        # Surely above, it would be a failure; but no shopper should find out.
        p99_ms, raised = observation.shadow["p99_ms"], ("p99_ms",)
        obstacle = f"p99_ms of {p99_ms:.1f} ms is above {shadow.most_p99_ms:g} ms, not surely"
    else:
        return None
    if observation.seconds_in_step < shadow.max_seconds:
        return stay(state, f"in shadow: {obstacle}")
    reason = f"in shadow: {obstacle} when the time was over"
    return pause("inconclusive", state, reason, raised=raised)


def _compare(shadow: Shadow, state: RolloutState, observation: Observation) -> Decision:
    different = {
        name: text
        for name, text in _different(shadow, observation.shadow).items()
        if name not in state.accepted
    }
    if different:
        return pause("inconclusive", state, "; ".join(different.values()), raised=[*different])
    requests = round(observation.shadow["requests"])
    return go("ramp", 0, f"in shadow: {requests} copies were answered within the limits")


def _different(shadow: Shadow, seen: Mapping[str, float]) -> dict[str, str]:
    """Other answers are no fault, but somebody should look at them first."""
    found = {}
    # Absent where no answer could be compared: nothing was shown, or all scores were equal.
    overlap, drift = seen.get("overlap", 1.0), seen.get("score_drift", 0.0)
    if overlap < shadow.least_overlap:
        found["overlap"] = (
            f"overlap: {overlap:.2f} of the products are the same, below {shadow.least_overlap:g}"
        )
    most = math.inf if shadow.most_score_drift is None else shadow.most_score_drift
    if drift > most:
        found["score_drift"] = f"score_drift: {drift:.2f} standard deviations, above {most:g}"
    return found
