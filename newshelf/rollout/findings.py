"""Findings in words: what was measured, and what would have been allowed."""

from collections.abc import Sequence

from newshelf.rollout.analysis import Analysis, SignalResult
from newshelf.rollout.guardrails import GuardrailResult
from newshelf.rollout.metric_results import MetricResult

MOST_TOLD = 10.0
"""Eleven times as much: an interval that is wider says that nothing is known yet."""


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
    """A metric with its confidence sequence, or with what was counted."""
    if result.reason:
        return f"{result.metric}: {result.reason}, {result.verdict}"
    unit = "points of the clicks" if result.metric == "preference" else "%"
    effect, low, high = (percent(value) for value in (result.effect, result.low, result.high))
    return f"{result.metric}: {effect} {unit} ({low} to {high}), {result.verdict}"


def percent(effect: float) -> str:
    """An effect without its unit; beyond ``MOST_TOLD`` nobody needs the number."""
    most = 100 * MOST_TOLD
    return f"{100 * effect:+.1f}" if effect <= MOST_TOLD else f"above +{most:g}"


def unclear(analysis: Analysis) -> list[MetricResult]:
    """The success metrics of which it cannot be said that they show no harm."""
    return [one for one in analysis.metrics if one.verdict == "unknown" or one.silence]


def suspicious(analysis: Analysis) -> list[MetricResult]:
    """The success metrics that are silent in one variant, and not because it is worse."""
    return [one for one in analysis.metrics if one.verdict == "unknown" and one.silence]


def below_control(raised: Sequence[SignalResult]) -> str:
    """Signals that fell below their limit."""
    return "; ".join(
        f"{one.metric}: {one.challenger:.0f} products where control has {one.control:.0f}, "
        f"below {one.least_of_control:.0%} of it"
        for one in raised
    )


def missing_feedback(analysis: Analysis) -> str | None:
    """The success metrics that nobody did anything for, in either variant; or None."""
    names = [one.metric for one in analysis.metrics if one.silence == "both"]
    if not names:
        return None
    return f"no feedback for {', '.join(names)} in either variant: is it sent?"


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
