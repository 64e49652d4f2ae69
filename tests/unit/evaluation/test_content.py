import numpy as np
import pytest

from newshelf.evaluation import baselines as content
from newshelf.evaluation.baselines import ContentNeighbours


@pytest.fixture
def features():
    drawn = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32) * 7
    drawn[11] = 0
    return drawn


HISTORIES = [np.array([0, 3, 4]), np.array([11]), np.array([2, 0]), np.array([], dtype=np.int64)]


def naive(features, history, pooling):
    scores = np.zeros(len(features))
    for item, one in enumerate(features):
        cosines = []
        for other in features[history]:
            norms = np.linalg.norm(one) * np.linalg.norm(other)
            cosines.append(float(one @ other) / norms if norms else 0.0)
        if cosines and pooling == "mean":
            scores[item] = np.mean(cosines)
        elif cosines and pooling == "max":
            scores[item] = max(cosines)
        elif cosines:
            scores[item] = sum(np.exp((np.array(cosines) - 1) / 0.1))
    return scores


@pytest.mark.parametrize("pooling", ["mean", "max", "kernel"])
@pytest.mark.parametrize("budget", [20, 10**9])
def test_scores_equal_the_naive_loop(make_split, features, pooling, budget, monkeypatch):
    monkeypatch.setattr(content, "_MAX_SIMILARITIES", budget)  # 20: one history at a time
    scores = ContentNeighbours(make_split([[0]], 12), features, pooling).scores(HISTORIES)
    assert scores.dtype == np.float32
    expected = [naive(features, history, pooling) for history in HISTORIES]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.zeros(12), np.full((12, 2), np.nan)])
def test_features_that_do_not_fit_are_refused(make_split, bad):
    with pytest.raises(ValueError, match="features"):
        ContentNeighbours(make_split([[0]], 12), bad.astype(np.float32), "mean")
