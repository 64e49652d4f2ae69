"""The fit of the signals' weights where the true ones are known."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from newshelf.errors import TrainingError
from newshelf.training.signal_weights import _PRIOR, calibrate, fit_weights

TRUE = np.array([1.5, -0.8, 0.0, 0.4], dtype=np.float32)


def choices(cases: int, items: int, seed: int = 0, scale=(1.0, 1.0, 1.0, 1.0)):
    """Signals, and one item a case drawn by exp(w · x) among those that can be taken."""
    rng = np.random.default_rng(seed)
    signals = (rng.standard_normal((cases, items, len(TRUE))) * scale).astype(np.float32)
    ranked = rng.random((cases, items)) < 0.9
    utility = np.where(ranked, signals @ TRUE, -np.inf) + rng.gumbel(size=(cases, items))
    relevant = np.zeros((cases, items), dtype=bool)
    relevant[np.arange(cases), utility.argmax(axis=1)] = True
    return signals, relevant, ranked


NO_CORRECTION = np.zeros((1, 1), dtype=np.float32)


def log_likelihood(weights: np.ndarray, signals, relevant, ranked, correction) -> float:
    """The module's formula in a loop, without the penalty."""
    total = 0.0
    for case in range(len(signals)):
        among = [at for at in range(signals.shape[1]) if ranked[case, at]]
        logits = {
            at: float(signals[case, at].astype(float) @ weights) + float(correction[case, at])
            for at in among
        }
        bottom = math.log(sum(math.exp(value) for value in logits.values()))
        taken = [at for at in among if relevant[case, at]]
        total += sum(logits[at] - bottom for at in taken) / len(taken)
    return total / len(signals)


def test_the_weights_behind_simulated_choices_are_recovered():
    signals, relevant, ranked = choices(3000, 30)
    found = fit_weights(signals, relevant, ranked, NO_CORRECTION)
    np.testing.assert_allclose(found, TRUE, atol=0.08)
    assert found.dtype == np.float32


def test_weights_are_for_signals_as_they_are_given():
    """Another unit of a signal changes its weight, not what is fitted."""
    signals, relevant, ranked = choices(400, 20)
    plain = fit_weights(signals, relevant, ranked, NO_CORRECTION)
    units = np.array([100, 0.01, 1, 1], dtype=np.float32)
    shift = np.array([0, 0, 50, -3], dtype=np.float32)
    found = fit_weights(signals * units + shift, relevant, ranked, NO_CORRECTION)
    np.testing.assert_allclose(found * units, plain, atol=2e-3)


def test_the_found_weights_are_the_likeliest():
    """The gradient of the naive likelihood, less the penalty's, is zero there."""
    signals, relevant, ranked = choices(60, 12, seed=1)
    relevant |= ranked & (np.random.default_rng(2).random(relevant.shape) < 0.1)
    correction = np.random.default_rng(3).random((60, 12)).astype(np.float32)
    found = fit_weights(signals, relevant, ranked, correction).astype(float)
    scale = signals.std(axis=(0, 1), ddof=1)
    arguments = (signals, relevant, ranked, correction)
    for signal in range(len(TRUE)):
        step = np.zeros(len(TRUE))
        step[signal] = 1e-4
        slope = (
            log_likelihood(found + step, *arguments) - log_likelihood(found - step, *arguments)
        ) / 2e-4
        # The penalty is on the weight of the standardised signal.
        assert slope / scale[signal] == pytest.approx(
            2 * _PRIOR / 60 * found[signal] * scale[signal], abs=2e-4
        )
    assert log_likelihood(found, *arguments) > log_likelihood(TRUE.astype(float), *arguments)


def test_a_sample_of_the_alternatives_stands_for_all():
    """Corrected for what was left out, half of the shelf tells the same weights."""
    items, drawn = 800, 400
    signals, relevant, ranked = choices(800, items, seed=4)
    whole = fit_weights(signals, relevant, ranked, NO_CORRECTION)
    rng = np.random.default_rng(5)
    places = np.empty((len(signals), drawn + 1), dtype=np.int64)
    for case in range(len(signals)):
        taken = int(relevant[case].argmax())
        others = np.delete(np.arange(items), taken)
        places[case] = [taken, *rng.choice(others, drawn, replace=False)]
    correction = np.full((1, drawn + 1), math.log((items - 1) / drawn), dtype=np.float32)
    correction[0, 0] = 0
    found = fit_weights(
        np.take_along_axis(signals, places[:, :, None], axis=1),
        np.take_along_axis(relevant, places, axis=1),
        np.take_along_axis(ranked, places, axis=1),
        correction,
    )
    np.testing.assert_allclose(found, whole, atol=0.06)


def test_a_signal_that_says_the_same_of_all_gets_no_weight():
    signals, relevant, ranked = choices(300, 20)
    plain = fit_weights(signals[:, :, :2], relevant, ranked, NO_CORRECTION)
    signals[:, :, 2] = math.log(1e-3)
    signals[:, :, 3] = 0
    found = fit_weights(signals, relevant, ranked, NO_CORRECTION)
    np.testing.assert_allclose(found[:2], plain, atol=1e-3)
    assert not found[2:].any()


def test_what_cannot_be_taken_does_not_count():
    signals, relevant, ranked = choices(300, 20)
    plain = fit_weights(signals, relevant, ranked, NO_CORRECTION)
    spoilt = signals.copy()
    spoilt[~ranked] *= -1
    found = fit_weights(spoilt, relevant, ranked, NO_CORRECTION)
    np.testing.assert_allclose(found, plain, atol=5e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_signal_that_is_not_finite_is_refused(value):
    signals, relevant, ranked = choices(40, 10)
    signals[3, 2, 1] = value
    with pytest.raises(TrainingError, match="not finite"):
        fit_weights(signals, relevant, ranked, NO_CORRECTION)


def test_without_cases_there_is_nothing_to_fit():
    empty = np.empty((0, 5), dtype=bool)
    with pytest.raises(TrainingError, match="no case"):
        fit_weights(np.empty((0, 5, 4), dtype=np.float32), empty, empty, NO_CORRECTION)


def taken_at(logits: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(len(logits)) < 1 / (1 + np.exp(-logits))


def test_calibrated_scores_are_the_log_odds():
    rng = np.random.default_rng(6)
    scores = [rng.normal(3, 2, 5000).astype(np.float32) for _ in range(4)]
    taken = [taken_at(0.7 * row - 5, at) for at, row in enumerate(scores)]
    ones = [np.ones(5000, dtype=np.float32) for _ in scores]
    slope, intercept = calibrate(scores, taken, ones)
    assert slope == pytest.approx(0.7, abs=0.05)
    assert intercept == pytest.approx(-5, abs=0.25)
    other = LogisticRegression(C=np.inf, tol=1e-8)
    other.fit(np.concatenate(scores)[:, None], np.concatenate(taken))
    assert slope == pytest.approx(float(other.coef_[0, 0]), rel=1e-3)
    assert intercept == pytest.approx(float(other.intercept_[0]), rel=1e-3)
    # On average, what is said to be taken is taken.
    said = 1 / (1 + np.exp(-(slope * np.concatenate(scores) + intercept)))
    assert said.mean() == pytest.approx(np.concatenate(taken).mean(), rel=1e-3)


def test_an_entry_that_stands_for_many_counts_as_many():
    rng = np.random.default_rng(7)
    scores = rng.normal(0, 1, 4000).astype(np.float32)
    taken = taken_at(scores - 1, 8)
    counts = np.where(taken, 1, 50).astype(np.float32)
    found = calibrate([scores], [taken], [counts])
    repeated = np.repeat(np.arange(4000), counts.astype(int))
    ones = np.ones(len(repeated), dtype=np.float32)
    assert found == pytest.approx(
        calibrate([scores[repeated]], [taken[repeated]], [ones]), rel=1e-3
    )


@pytest.mark.parametrize("sign", [-1, 0])
def test_the_order_is_never_turned_round(sign):
    """Not even where the scores are worse than chance, or all the same."""
    scores = np.linspace(-2, 2, 500).astype(np.float32) * abs(sign)
    taken = np.linspace(-2, 2, 500) < -1.5
    slope, intercept = calibrate([scores], [taken], [np.ones(500, dtype=np.float32)])
    assert slope > 0
    assert math.isfinite(slope)
    said = torch.sigmoid(torch.from_numpy(slope * scores.astype(float) + intercept))
    assert float(said.mean()) == pytest.approx(taken.mean(), rel=0.05)
