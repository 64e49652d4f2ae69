import io

import numpy as np
from rich.console import Console

from newshelf.config import EvaluationSettings
from newshelf.evaluation.baselines import Popularity
from newshelf.evaluation.evaluate import compare_all
from newshelf.evaluation.splits import default_splits


def test_each_training_is_fitted_once_and_every_split_compared(shop):
    splits = default_splits(shop, EvaluationSettings(), 7)
    fitted = []

    def fit(split):
        fitted.append(split.name)
        return Popularity(split)

    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    console = Console(file=io.StringIO())
    found = compare_all(splits, shop, k=(5,), features=features, fit_model=fit, console=console)
    assert fitted == ["time", "cold"]
    assert [comparison.split for comparison in found] == ["time", "cold", "cold-among-new"]
    for comparison in found:
        by_name = {row.ranker: row for row in comparison.baselines}
        assert len(by_name) == 11
        assert comparison.model.ndcg == by_name["popularity of 60 days"].ndcg
    assert found[2].items < found[1].items == 60


def test_a_model_is_not_needed(shop):
    splits = default_splits(shop, EvaluationSettings(), 7)[:1]
    (found,) = compare_all(splits, shop, console=Console(file=io.StringIO()))
    assert found.model is None
