"""Fit of the signals' weights where the true ones are known, and the blend from them."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from newshelf.catalog.interactions import Sequences
from newshelf.config import BlendSettings
from newshelf.errors import TrainingError
from newshelf.evaluation.types import Case
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.training import ranking as blending
from newshelf.training.ranking import (
    _PRIOR,
    BlendRanker,
    Ranking,
    Signals,
    _columns,
    calibrate,
    fit_blend,
    fit_weights,
    make_signals,
)
from newshelf.training.siamese import score_all

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
    slope, intercept = calibrate(*map(np.concatenate, (scores, taken, ones)))
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
    found = calibrate(scores, taken, counts)
    repeated = np.repeat(np.arange(4000), counts.astype(int))
    ones = np.ones(len(repeated), dtype=np.float32)
    assert found == pytest.approx(calibrate(scores[repeated], taken[repeated], ones), rel=1e-3)


@pytest.mark.parametrize("sign", [-1, 0])
def test_the_order_is_never_turned_round(sign):
    """Not even where the scores are worse than chance, or all the same."""
    scores = np.linspace(-2, 2, 500).astype(np.float32) * abs(sign)
    taken = np.linspace(-2, 2, 500) < -1.5
    slope, intercept = calibrate(scores, taken, np.ones(500, dtype=np.float32))
    assert slope > 0
    assert math.isfinite(slope)
    said = torch.sigmoid(torch.from_numpy(slope * scores.astype(float) + intercept))
    assert float(said.mean()) == pytest.approx(taken.mean(), rel=0.05)


ITEMS, KNOWN = 150, 130
MET = np.arange(ITEMS)
DAY = 86_400
RNG = np.random.default_rng(12)
EMBEDDINGS = F.normalize(torch.randn(ITEMS, 16, generator=torch.Generator().manual_seed(3)), dim=1)
# Low numbers are popular; neighbours in number go together.
SEQUENCES = [
    np.unique((RNG.exponential(40) + RNG.integers(0, 8, 5)).astype(np.int64) % KNOWN)
    for _ in range(400)
]
STAMPS = [np.sort(RNG.integers(0, 90 * DAY, len(s))) for s in SEQUENCES]
CASES = [Case(sequence[:-1], sequence[-1:]) for sequence in SEQUENCES[:200] if len(sequence) > 2]


@pytest.fixture(scope="module")
def scorer() -> SiameseScorer:
    torch.manual_seed(0)
    return SiameseScorer(ScorerSpec(width=8, hidden=16, max_history=3), 16).eval()


@pytest.fixture(scope="module")
def siamese(scorer) -> np.ndarray:
    return score_all(scorer, EMBEDDINGS, [case.history for case in CASES])


def signals_of(stamps=STAMPS) -> Signals:
    return make_signals(
        EMBEDDINGS, Sequences(SEQUENCES[150:], stamps and stamps[150:]), BlendSettings()
    )


@pytest.mark.parametrize("stamps", [STAMPS, None])
def test_what_is_fitted_is_what_is_scored(scorer, siamese, stamps):
    """table @ weights + intercept, for some of the items."""
    signals = signals_of(stamps)
    weights = dict(zip(signals.names, RNG.standard_normal(len(signals.names)), strict=True))
    columns = np.array([3, 77, 149, 20])
    histories = [case.history for case in CASES]
    table = signals.table(histories, siamese, columns)
    assert table.shape == (len(CASES), 4, len(signals.names))
    expected = table @ np.array([*weights.values()]) - 2.5
    blend = signals.weighed(weights, -2.5)
    found = BlendRanker(Ranking(scorer, blend, []), EMBEDDINGS).scores(histories)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, columns], expected, atol=1e-3)


def test_the_blend_keeps_weights_of_what_depends_on_the_history():
    signals = signals_of()
    blend = signals.weighed(dict.fromkeys(signals.names, 1.0))
    assert set(blend.spec.weights) == {"siamese", "content", "direct", "similar", "likewise"}
    expected = np.sum([*signals.unpersonal.values()], axis=0)
    np.testing.assert_allclose(blend.prior, expected, atol=1e-5)


def test_of_a_large_shelf_a_uniform_draw_stands_for_the_others(monkeypatch):
    monkeypatch.setattr(blending, "_MAX_ITEMS", 20)
    cases = CASES[:10]
    wanted = np.unique(np.concatenate([case.relevant for case in cases]))
    columns, stands_for = _columns(cases, MET, np.random.default_rng(0))
    assert columns[: len(wanted)].tolist() == wanted.tolist()
    assert len(np.unique(columns)) == len(columns) == len(wanted) + 20
    assert (stands_for[: len(wanted)] == 1).all()
    assert stands_for.sum() == pytest.approx(ITEMS)
    assert len(set(stands_for[len(wanted) :].tolist())) == 1
    drawn = np.concatenate([_columns(cases, MET, np.random.default_rng(s))[0] for s in range(60)])
    assert set(drawn.tolist()) == set(range(ITEMS))


def test_what_nobody_met_is_no_alternative(siamese):
    """Else the weights would learn that what is new is not taken."""
    signals = signals_of()
    among_all, _ = fit_blend(signals, CASES, siamese, MET, np.random.default_rng(1))
    known = np.arange(KNOWN)
    among_met, _ = fit_blend(signals, CASES, siamese, known, np.random.default_rng(1))
    assert among_all["new"] < -0.5
    assert among_met["new"] > among_all["new"] + 0.5


def test_of_a_small_shelf_everything_counts():
    columns, stands_for = _columns(CASES, MET, np.random.default_rng(0))
    assert columns.tolist() == list(range(ITEMS))
    assert (stands_for == 1).all()


def fitted_scores(scorer, siamese) -> np.ndarray:
    signals = signals_of()
    weights, intercept = fit_blend(signals, CASES, siamese, MET, np.random.default_rng(1))
    assert list(weights) == list(signals.names)
    ranking = Ranking(scorer, signals.weighed(weights, intercept), [])
    return BlendRanker(ranking, EMBEDDINGS).scores([case.history for case in CASES])


def test_probabilities_sum_to_what_was_taken(scorer, siamese, monkeypatch):
    """Also when most of the shelf is only drawn from."""
    sums = []
    for most in (blending._MAX_ITEMS, 60):
        monkeypatch.setattr(blending, "_MAX_ITEMS", most)
        said = 1 / (1 + np.exp(-fitted_scores(scorer, siamese).astype(float)))
        for row, case in zip(said, CASES, strict=True):
            row[case.history] = 0
        sums.append(said.sum() / len(CASES))
    # A logistic regression is right on average over what it was fitted on.
    assert sums[0] == pytest.approx(1, abs=0.01)
    assert sums[1] == pytest.approx(1, abs=0.15)


def test_a_draw_ranks_as_the_whole_shelf_does(scorer, siamese, monkeypatch):
    whole = fitted_scores(scorer, siamese)
    monkeypatch.setattr(blending, "_MAX_ITEMS", 60)
    drawn = fitted_scores(scorer, siamese)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(whole, drawn, strict=True)]
    assert np.mean(correlation) > 0.95
