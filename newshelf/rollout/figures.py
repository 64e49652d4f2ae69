"""An analysis in words, by table: shared by the terminal and the page."""

import math
from collections.abc import Sequence

from newshelf.rollout.analysis import Analysis
from newshelf.rollout.guardrails import GuardrailResult
from newshelf.rollout.reasons import percent
from newshelf.rollout.results import MetricResult

__all__ = [
    "GUARDRAIL_HEADER",
    "METRIC_HEADER",
    "SIGNAL_HEADER",
    "check_lines",
    "guardrail_rows",
    "metric_rows",
    "signal_rows",
]

Rows = Sequence[Sequence[str]]

METRIC_HEADER = ("metric", "control", "challenger", "effect", "interval", "p", "information", "")
GUARDRAIL_HEADER = ("guardrail", "control", "challenger", "at least", "allowed", "")
SIGNAL_HEADER = ("signal", "control", "challenger", "allowed", "")
_UNKNOWN = "–"
_LEAST_P = 0.0001


def metric_rows(analysis: Analysis) -> Rows:
    """Per success metric: both variants, the effect with its confidence sequence, the verdict."""
    return [_metric(one) for one in analysis.metrics]


def guardrail_rows(analysis: Analysis) -> Rows:
    """Per guardrail: both variants, what the challenger's is at least, and what is allowed."""
    return [
        (
            f"{one.metric} ({one.kind.replace('_', ' ')})",
            _measure(one, one.control),
            _measure(one, one.challenger),
            _measure(one, one.low),
            _measure(one, one.allowed),
            "broken" if one.failed else "kept",
        )
        for one in analysis.guardrails
    ]


def signal_rows(analysis: Analysis) -> Rows:
    """Per signal: products shown by both variants."""
    return [
        (
            one.metric,
            _number(one.control, ".0f"),
            _number(one.challenger, ".0f"),
            f"{one.least_of_control:.0%} of control",
            "raised" if one.raised else "quiet",
        )
        for one in analysis.signals
    ]


def check_lines(analysis: Analysis) -> Sequence[str]:
    """Whether the experiment itself can be believed."""
    ratio = analysis.sample_ratio
    believed = "a mismatch" if ratio.mismatch else "as it should be"
    return (
        f"units since the rollout began: {ratio.control} control, {ratio.challenger} challenger "
        f"(sample ratio {believed}, p = {ratio.sequential_p:.3g})",
        f"units in this step: {analysis.control_units} control, {analysis.challenger_units} "
        "challenger",
        f"requests in this step: {analysis.control_requests} control, "
        f"{analysis.challenger_requests} challenger",
        f"units that saw both: {analysis.double_exposed}",
        *(
            f"unit {one.unit} has {one.share:.0%} of the answers of {one.variant}: if it is no "
            "shopper, name it in the next plan's overrides, and it is not counted"
            for one in analysis.heavy_units
        ),
    )


def _metric(one: MetricResult) -> Sequence[str]:
    effect, low, high = (_effect(one, value) for value in (one.effect, one.low, one.high))
    interval = one.reason or (_UNKNOWN if math.isnan(one.effect) else f"{low} … {high}")
    return (
        one.metric,
        _number(one.control, ".4g"),
        _number(one.challenger, ".4g"),
        effect,
        interval,
        f"{one.p:.4f}" if one.p >= _LEAST_P else f"< {_LEAST_P}",
        f"{one.information / one.planned_information:.0%} of planned",
        f"{one.verdict}, {one.capped} units capped" if one.capped else one.verdict,
    )


def _effect(one: MetricResult, value: float) -> str:
    if math.isnan(value):
        return _UNKNOWN
    return f"{value:+.3f}" if one.metric == "preference" else f"{percent(value)}%"


def _measure(one: GuardrailResult, value: float) -> str:
    return _number(value, ".1f") + " ms" if one.metric == "p99_ms" else _number(value, ".2%")


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else _UNKNOWN
