import io

import numpy as np
import pytest
from rich.console import Console

from newshelf.config import EvaluationSettings
from newshelf.evaluation.baselines import Popularity
from newshelf.evaluation.evaluate import compare, compare_all, evaluate
from newshelf.evaluation.splits import default_splits


class Fixed:
    def __init__(self, name, row):
        self.name = name
        self.row = np.array(row, dtype=np.float32)
        self.asked = []

    def scores(self, histories):
        self.asked.append(len(histories))
        return np.tile(self.row, (len(histories), 1))


def test_histories_are_scored_in_batches(make_split):
    split = make_split([[0]], 4, [([0], [1])] * 7)
    ranker = Fixed("fixed", [0, 1, 2, 3])
    evaluate(ranker, split, batch=3)
    assert ranker.asked == [3, 3, 1]


def test_a_split_without_a_case_cannot_be_evaluated(make_split):
    with pytest.raises(ValueError, match="no case"):
        evaluate(Fixed("fixed", [0, 1]), make_split([[0]], 2))


def test_the_best_baseline_and_the_ratio_of_the_model_to_it(make_split):
    split = make_split([[0]], 4, [([0], [3]), ([0], [2])])
    rankers = [Fixed("bad", [0, 3, 2, 1]), Fixed("good", [0, 1, 2, 3])]
    out = io.StringIO()
    found = compare(
        rankers, split, (1,), model=Fixed("us", [0, 0, 1, 2]), console=Console(file=out)
    )
    assert found.best_baseline.ranker == "good"
    assert [row.ranker for row in found.rows] == ["bad", "good", "us"]
    assert found.ratio == 1.0
    assert found.ratio_interval() is None  # two cases are too few
    assert (found.cases, found.items) == (2, 4)


def test_without_a_model_there_is_no_ratio(make_split):
    found = compare([Fixed("a", [0, 1])], make_split([[0]], 2, [([0], [1])]), (1,))
    assert found.model is None
    assert found.ratio is None
    assert found.ratio_interval() is None


def test_the_interval_covers_the_ratio_and_narrows_with_cases(make_split):
    generator = np.random.default_rng(5)
    widths = []
    for n in (40, 1000):
        truth = generator.integers(1, 6, size=n)
        split = make_split([[0]], 6, [([0], [int(item)]) for item in truth])
        found = compare([Fixed("a", range(6))], split, (3,), model=Fixed("b", [0, 5, 4, 3, 2, 1]))
        low, high = found.ratio_interval()
        assert low < found.ratio < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_a_comparison_needs_a_baseline(make_split):
    with pytest.raises(ValueError, match="needs a baseline"):
        compare([], make_split([[0]], 2, [([0], [1])]), model=Fixed("us", [0, 1]))


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
        assert comparison.model.values == by_name["popularity of 60 days"].values
    assert found[2].items < found[1].items == 60


def test_a_model_is_not_needed(shop):
    splits = default_splits(shop, EvaluationSettings(), 7)[:1]
    (found,) = compare_all(splits, shop, console=Console(file=io.StringIO()))
    assert found.model is None
