"""Rankers that know the answers rank by them."""

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.transfer.retail import Asked, weighed_by_answers
from newshelf.catalog.interactions import Sequences
from newshelf.config import BlendSettings, ScorerSettings
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.types import Case, Split
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.training.ranking import BlendRanker, Ranking, make_signals

ITEMS = 40
RNG = np.random.default_rng(5)
EVERY = np.ones(ITEMS, dtype=np.bool_)


def split() -> Split:
    """Shoppers take what is like their history, whatever is popular."""
    vectors = embeddings().numpy()
    train, cases = [], []
    for _ in range(60):
        near = np.argsort(-(vectors @ vectors[RNG.integers(ITEMS)]))
        train.append(near[1:4])
        cases.append(Case(near[1:4], near[:1]))
    return Split("all", Sequences(train), cases, EVERY, "all items")


def embeddings() -> torch.Tensor:
    return F.normalize(torch.randn(ITEMS, 8, generator=torch.Generator().manual_seed(3)), dim=1)


def test_what_is_asked_for_is_counted():
    cases = [Case(np.array([0]), np.array(asked)) for asked in ([3], [3, 5], [5, 3, 7])]
    train = Sequences([np.array([0])])
    scores = Asked(Split("all", train, cases, EVERY, "")).scores([np.array([0])] * 2)
    assert scores.shape == (2, ITEMS)
    assert scores[1, [3, 5, 7]].tolist() == [3, 2, 1]
    assert scores.sum() == 12


def test_weights_fitted_on_the_answers_rank_better_than_wrong_ones():
    asked = split()
    torch.manual_seed(0)
    scorer = SiameseScorer(ScorerSpec(width=4), 8).eval()
    signals = make_signals(embeddings(), asked.train, BlendSettings())
    wrong = signals.weighed(dict.fromkeys(signals.names, 0.0) | {"content": -1.0})
    served = BlendRanker(Ranking(scorer, wrong, []), embeddings())
    refitted = weighed_by_answers(served, asked, ScorerSettings().blend)
    assert refitted.ranking.blend is not None
    assert refitted.ranking.blend.spec.weights["content"] > 0
    assert refitted.ranking.scorer is scorer
    found = [evaluate(ranker, asked, (10,)).values["NDCG@10"] for ranker in (served, refitted)]
    assert found[1] > found[0] + 0.3
