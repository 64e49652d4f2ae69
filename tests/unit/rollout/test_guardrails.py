"""Each guardrail breaks on what it is for, and on nothing else."""

import math

import numpy as np
import pytest

from newshelf.rollout.guardrails import check_guardrails, level_of
from tests.unit.rollout.conftest import health, plan

ALL = [
    {"metric": "error_rate", "most": 0.02},
    {"metric": "error_rate", "above_control": 0.01},
    {"metric": "p99_ms", "most": 250},
    {"metric": "p99_ms", "times_control": 1.5},
    {"metric": "empty_share", "above_control": 0.02},
    {"metric": "fallback_share", "above_control": 0.05},
    {"metric": "fallback_share", "most": 0.2},
]


def failed(challenger: dict[str, object], **control: object) -> list[str]:
    results = check_guardrails(plan(guardrails=ALL), health(**control), health(**challenger))
    return [f"{one.metric}.{one.kind}" for one in results if one.failed]


@pytest.mark.parametrize(
    ("challenger", "expected"),
    [
        ({}, []),
        ({"errors": 20}, []),
        ({"errors": 100}, ["error_rate.most", "error_rate.above_control"]),
        ({"empty": 200}, ["empty_share.above_control"]),
        ({"fallbacks": 250}, ["fallback_share.above_control"]),
        ({"fallbacks": 600}, ["fallback_share.above_control", "fallback_share.most"]),
        ({"latencies_ms": np.linspace(10, 240, 2000)}, ["p99_ms.times_control"]),
        (
            {"latencies_ms": np.linspace(10, 500, 2000)},
            ["p99_ms.most", "p99_ms.times_control"],
        ),
    ],
)
def test_what_breaks_which(challenger: dict[str, object], expected: list[str]) -> None:
    assert failed(challenger) == expected


def test_what_both_have_is_not_the_challenger_s_fault() -> None:
    ill = {"errors": 100, "empty": 200, "fallbacks": 250}
    assert failed(ill, **ill) == ["error_rate.most"]


def test_a_slow_server_is_not_the_challenger_s_fault() -> None:
    slow = {"latencies_ms": np.linspace(10, 500, 2000)}
    assert failed(slow, **slow) == ["p99_ms.most"]


def test_without_a_request_nothing_is_broken() -> None:
    nothing = {"requests": 0, "latencies_ms": np.empty(0), "items": {}, "units": 0}
    assert failed(nothing, **nothing) == []
    (first, *_) = check_guardrails(plan(), health(**nothing), health(**nothing))
    assert math.isnan(first.challenger)


def test_a_few_slow_answers_are_not_yet_a_p99() -> None:
    """Three of ten are slow: far above one in a hundred, but it may be chance."""
    few = {"requests": 3, "latencies_ms": np.array([20.0, 20.0, 900.0]), "units": 3}
    assert failed(few) == []
    more = np.tile([20.0, 20.0, 900.0], 10)
    assert failed({"requests": 30, "latencies_ms": more}) == [
        "p99_ms.most",
        "p99_ms.times_control",
    ]


def test_what_is_told_is_what_was_measured() -> None:
    error, relative, *_ = check_guardrails(
        plan(guardrails=ALL), health(errors=10), health(errors=100)
    )
    assert (error.control, error.challenger) == (0.005, 0.05)
    assert error.low < 0.05
    assert error.allowed == 0.02
    assert 0.015 < relative.allowed < 0.05


def test_the_level_is_shared_by_guardrails_and_stages() -> None:
    """Two steps, shadow and promotion; four guardrails."""
    assert level_of(plan()) == pytest.approx(0.05 / 16)
    assert level_of(plan(shadow=None)) == pytest.approx(0.05 / 12)


def test_a_challenger_like_control_is_seldom_rolled_back() -> None:
    """Both at the limit of what is allowed, looked at every 200 requests."""
    rules = plan(guardrails=ALL, guardrail_alpha=0.1)
    random = np.random.default_rng(12)
    rolled_back = 0
    for _ in range(80):
        sides = []
        for side in (0, 1):
            errors = random.random(1200) < 0.02 - 0.012 * (1 - side)
            fallbacks = random.random(1200) < 0.05 + 0.05 * side
            empty = random.random(1200) < 0.01 + 0.02 * side
            sides.append((errors, fallbacks, empty, random.lognormal(3.9, 0.5, 1200)))
        for n in range(200, 1201, 200):
            control, challenger = (
                health(
                    n,
                    errors=int(errors[:n].sum()),
                    fallbacks=int(fallbacks[:n].sum()),
                    empty=int(empty[:n].sum()),
                    latencies_ms=latencies[:n],
                )
                for errors, fallbacks, empty, latencies in sides
            )
            if any(one.failed for one in check_guardrails(rules, control, challenger)):
                rolled_back += 1
                break
    assert rolled_back <= 8


def test_a_challenger_twice_as_slow_is_rolled_back_within_its_step() -> None:
    rules = plan(guardrails=[{"metric": "p99_ms", "times_control": 1.3}])
    random = np.random.default_rng(13)
    latencies = random.lognormal(3.5, 0.3, (2, 3000)) * [[1], [2]]
    needed = next(
        n
        for n in range(100, 3001, 100)
        if check_guardrails(
            rules,
            health(n, latencies_ms=latencies[0, :n]),
            health(n, latencies_ms=latencies[1, :n]),
        )[0].failed
    )
    assert 500 < needed < 2000
