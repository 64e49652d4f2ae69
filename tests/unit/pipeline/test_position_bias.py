"""Examination by position, from pairs whose order was drawn by chance."""

import numpy as np
import pytest

from newshelf.errors import EvidenceError
from newshelf.pipeline.position_bias import PositionBias, fit_position_bias

POSITIONS = np.arange(1, 11)


def events(examined: np.ndarray, answers: int, seed: int, repeats: int = 1):
    """Positions, orders and units of the events of explored pairs; the pair's better product is
    three times as attractive, and better pairs are nearer to the top."""
    random = np.random.default_rng(seed)
    first = random.choice(POSITIONS[:-1], answers, p=(share := 1 / POSITIONS[:-1]) / share.sum())
    appeal = np.stack([0.6 / np.sqrt(first), 0.2 / np.sqrt(first)])
    appeal = random.permuted(appeal, axis=0)
    done = [
        (int(first[at]), bool(later), f"u{at}")
        for later in (0, 1)
        for at in range(answers)
        if random.random() < examined[first[at] - 1 + later] * appeal[later, at]
    ]
    positions, is_later, units = zip(*done * repeats, strict=True)
    return np.array(positions), np.array(is_later), units


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_the_exponent_is_found_and_its_interval_holds(exponent: float) -> None:
    examined = 1.0 / POSITIONS**exponent
    found = [fit_position_bias(*events(examined, 4000, seed)) for seed in range(40)]
    assert np.mean([one.exponent for one in found]) == pytest.approx(exponent, abs=0.05)
    assert sum(one.low <= exponent <= one.high for one in found) >= 35


def test_repeated_events_of_a_shopper_say_no_more() -> None:
    once, often = (fit_position_bias(*events(1 / POSITIONS, 2000, 1, many)) for many in (1, 9))
    assert often.exponent == pytest.approx(once.exponent)
    assert often.high - often.low == pytest.approx(once.high - once.low)


def test_without_bias_nothing_is_corrected() -> None:
    for seed in range(3, 8):
        with pytest.raises(EvidenceError, match="no bias"):
            fit_position_bias(*events(np.ones(10), 1000, seed))


def test_too_few_events_are_refused() -> None:
    with pytest.raises(EvidenceError, match="explore_share"):
        fit_position_bias(np.array([1]), np.array([False]), ["u"])


def test_one_sided_events_do_not_diverge() -> None:
    found = fit_position_bias(np.ones(200), np.zeros(200, bool), [f"u{at}" for at in range(200)])
    assert 2 < found.exponent <= 4


def test_weights_are_clipped_and_self_normalised() -> None:
    weights = PositionBias(1.0, 0.9, 1.1, 500).weights(np.array([1, 2, 50, 80]), 4.0)
    assert weights.mean() == pytest.approx(1)
    assert (weights / weights[0]).tolist() == pytest.approx([1, 2, 4, 4])
