"""Findings of an analysis in words: measured values and limits."""

import math
from collections.abc import Sequence

from newshelf.rollout.analysis import Analysis, SignalResult
from newshelf.rollout.guardrails import GuardrailResult
from newshelf.rollout.metric_results import MetricResult

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


def limit_broken(analysis: Analysis) -> str | None:
    """Return the broken guardrails in words; None if all hold."""
    failed = [_guardrail(one) for one in analysis.guardrails if one.failed]
    return "; ".join(failed) or None


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


def unclear(analysis: Analysis) -> list[MetricResult]:
    """Return the success metrics for which harm cannot be excluded."""
    return [one for one in analysis.metrics if one.verdict == "unknown" or one.silence]


def suspicious(analysis: Analysis) -> list[MetricResult]:
    """Return the success metrics that are silent in a variant, but not because it is worse."""
    return [one for one in analysis.metrics if one.verdict == "unknown" and one.silence]


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
