"""From signals to the blend that is served: the table that is fitted is what is scored."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from newshelf.config import BlendSettings
from newshelf.evaluation.types import Case
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.training import signal_weights as blending
from newshelf.training.ranking import BlendRanker, Ranking
from newshelf.training.siamese import score_all
from newshelf.training.signal_weights import Signals, _columns, fit_blend, make_signals

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
    return make_signals(EMBEDDINGS, SEQUENCES[150:], stamps and stamps[150:], BlendSettings())


@pytest.mark.parametrize("stamps", [STAMPS, None])
def test_what_is_fitted_is_what_is_scored(scorer, siamese, stamps, monkeypatch):
    """table @ weights + intercept, for some of the items, in parts of a few cases."""
    monkeypatch.setattr(blending, "_CASES_AT_ONCE", 7)
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
