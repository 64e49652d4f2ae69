"""Findings in words: what was measured, and what would have been allowed."""

from collections.abc import Sequence

from newshelf.rollout.analysis import Analysis, SignalResult
from newshelf.rollout.guardrails import GuardrailResult
from newshelf.rollout.results import MetricResult

__all__ = [
    "below_control",
    "broken",
    "described",
    "limit_broken",
    "missing_feedback",
    "worse",
]


def broken(analysis: Analysis) -> str | None:
    """Why the experiment itself cannot be believed, or None."""
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


def limit_broken(analysis: Analysis) -> str | None:
    """Which guardrails are broken, or None."""
    failed = [_guardrail(one) for one in analysis.guardrails if one.failed]
    return "; ".join(failed) or None


def worse(analysis: Analysis) -> list[MetricResult]:
    """The success metrics that are shown to be worse."""
    return [one for one in analysis.metrics if one.verdict == "worse"]


def described(result: MetricResult) -> str:
    """A metric with its confidence sequence."""
    if result.verdict == "unknown":
        return f"{result.metric}: too few units that did it"
    unit = "points of the clicks" if result.metric == "preference" else "%"
    low, effect, high = (100 * value for value in (result.low, result.effect, result.high))
    return f"{result.metric}: {effect:+.1f} {unit} ({low:+.1f} to {high:+.1f}), {result.verdict}"


def below_control(raised: Sequence[SignalResult]) -> str:
    """Signals that fell below their limit."""
    return "; ".join(
        f"{one.metric}: {one.challenger:.0f} products where control has {one.control:.0f}, "
        f"below {one.least_of_control:.0%} of it"
        for one in raised
    )


def missing_feedback(analysis: Analysis) -> str | None:
    """Whether no feedback comes in at all, or None.

    A single silent metric may just be rare, as purchases are in a small step.
    """
    if not all(one.silent for one in analysis.metrics):
        return None
    names = ", ".join(one.metric for one in analysis.metrics)
    return f"no feedback for {names} in either variant: is it sent?"


def _guardrail(one: GuardrailResult) -> str:
    if one.metric == "p99_ms":
        measured, low, allowed = (
            f"{value:.1f} ms" for value in (one.challenger, one.low, one.allowed)
        )
    else:
        measured, low, allowed = (
            f"{value:.2%}" for value in (one.challenger, one.low, one.allowed)
        )
    return f"{one.metric}: {measured} (at least {low}), allowed is {allowed}"
