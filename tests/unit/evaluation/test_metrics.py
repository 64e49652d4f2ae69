import numba
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.interactions import Sequences
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.metrics import (
    ItemPopularity,
    best_rank,
    coverage,
    exposures,
    few_shot,
    gini,
    mask_scores,
    segment_results,
    tie_order,
    top_items,
)
from newshelf.evaluation.types import Case, Split


class Given:
    """Scores drawn beforehand, handed out in the order of the cases."""

    name = "given"

    def __init__(self, scores):
        self.all = scores
        self.next = 0

    def scores(self, histories):
        self.next += len(histories)
        return self.all[self.next - len(histories) : self.next]


def drawn(seed, n_cases, n_items, levels=None):
    """Random cases and scores; with few ``levels``, most scores are equal."""
    generator = np.random.default_rng(seed)
    candidates = generator.random(n_items) < 0.8
    candidates[:3] = True
    cases = []
    for _ in range(n_cases):
        order = generator.permutation(np.flatnonzero(candidates))
        parts = generator.integers(1, len(order) - 1, size=2)
        relevant = order[: min(parts[0], 6)]
        history = np.setdiff1d(generator.permutation(n_items)[: parts[1]], relevant)
        if len(history) == 0:
            history = order[-1:]
        cases.append(Case(history, relevant))
    scores = generator.random((n_cases, n_items)).astype(np.float32)
    if levels:
        scores = np.floor(scores * levels)
    return Split("drawn", Sequences([]), cases, candidates, ""), scores.astype(np.float32)


def naive(split, scores, k):
    """The formulas as one would write them on paper, one case at a time."""
    place = {item: number for number, item in enumerate(tie_order(split.n_items).tolist())}
    recalls, ndcgs, reciprocals, shown = [], [], [], set()
    for case, row in zip(split.cases, scores, strict=True):
        ranked = [i for i in np.flatnonzero(split.candidates) if i not in case.history]
        ranked.sort(key=lambda item: (-row[item], place[item]))
        relevant = set(case.relevant.tolist())
        gains = [1 / np.log2(r + 2) for r, item in enumerate(ranked[:k]) if item in relevant]
        ideal = sum(1 / np.log2(r + 2) for r in range(min(k, len(relevant))))
        recalls.append(len(gains) / len(relevant))
        ndcgs.append(sum(gains) / ideal)
        first = next(r for r, item in enumerate(ranked) if item in relevant)
        reciprocals.append(1 / (first + 1))
        shown.update(ranked[:k])
    coverage = len(shown) / split.candidates.sum()
    return np.mean(recalls), np.mean(ndcgs), np.mean(reciprocals), coverage


@given(
    seed=st.integers(0, 2**32 - 1),
    n_cases=st.integers(1, 9),
    n_items=st.integers(4, 40),
    k=st.integers(1, 50),
    levels=st.sampled_from([None, 1, 3]),
    batch=st.integers(1, 10),
)
@settings(max_examples=150, deadline=None)
def test_vectorised_metrics_equal_the_naive_loop(seed, n_cases, n_items, k, levels, batch):
    split, scores = drawn(seed, n_cases, n_items, levels)
    found = evaluate(Given(scores), split, (k,), batch=batch)
    recall, ndcg, mrr, coverage = naive(split, scores, k)
    assert found.values[f"Recall@{k}"] == pytest.approx(recall)
    assert found.values[f"NDCG@{k}"] == pytest.approx(ndcg)
    assert found.values["MRR"] == pytest.approx(mrr)
    assert found.values[f"Coverage@{k}"] == pytest.approx(coverage)


def test_metrics_equal_those_of_ranx(monkeypatch):
    # ranx would compile for most of a minute to compute for a millisecond.
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    from ranx import Qrels, Run  # noqa: PLC0415
    from ranx import evaluate as ranx_evaluate  # noqa: PLC0415

    split, scores = drawn(11, 40, 60)
    found = evaluate(Given(scores), split, (5, 20))
    masked = mask_scores(scores, split.cases, split.candidates)
    qrels = {f"q{n}": {f"i{i}": 1 for i in case.relevant} for n, case in enumerate(split.cases)}
    run = {
        f"q{n}": {f"i{i}": float(row[i]) for i in np.flatnonzero(np.isfinite(row))}
        for n, row in enumerate(masked)
    }
    names = ["recall@5", "recall@20", "ndcg@5", "ndcg@20", "mrr"]
    expected = ranx_evaluate(Qrels(qrels), Run(run), names)
    ours = [found.values[name] for name in ("Recall@5", "Recall@20", "NDCG@5", "NDCG@20", "MRR")]
    np.testing.assert_allclose(ours, [expected[name] for name in names], rtol=1e-6)


def test_by_hand():
    case = Case(np.array([0]), np.array([2, 4]))
    scores = np.array([[9, 5, 4, 3, 2]], dtype=np.float32)
    split = Split("hand", Sequences([]), [case], np.ones(5, dtype=bool), "")
    found = evaluate(Given(scores), split, (2, 4))  # ranked: 1, 2, 3, 4
    assert [found.values["Recall@2"], found.values["Recall@4"]] == [0.5, 1.0]
    assert found.values["MRR"] == 0.5
    ideal = 1 + 1 / np.log2(3)
    assert found.values["NDCG@2"] == pytest.approx((1 / np.log2(3)) / ideal)
    assert found.values["NDCG@4"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert [found.values["Coverage@2"], found.values["Coverage@4"]] == [0.4, 0.8]


def test_equal_scores_are_worth_no_more_than_chance():
    cases = [Case(np.array([start]), np.array([start + 1])) for start in range(0, 1000, 2)]
    split = Split("ties", Sequences([]), cases, np.ones(1000, dtype=bool), "")
    found = evaluate(Given(np.zeros((500, 1000), dtype=np.float32)), split, (100,))
    assert 0.05 < found.values["Recall@100"] < 0.15


def test_ties_do_not_follow_the_order_of_the_catalogue():
    masked = np.zeros((1, 1000), dtype=np.float32)
    top = top_items(masked, 100, tie_order(1000))[0]
    assert 350 < top.mean() < 650


def test_fewer_items_than_k_leave_empty_places():
    masked = np.array([[1, -np.inf, 2]], dtype=np.float32)
    assert top_items(masked, 10, np.arange(3)).tolist() == [[2, 0, -1]]


def test_items_that_the_ranker_rejects_still_come_after_the_others():
    case = Case(np.array([0]), np.array([1]))
    scores = np.array([[0, -np.inf, 3, np.inf]], dtype=np.float32)
    masked = mask_scores(scores, [case], np.ones(4, dtype=bool))
    assert best_rank(masked, [case], np.arange(4)).tolist() == [3]


@pytest.mark.parametrize(
    ("scores", "reason"),
    [(np.full((1, 3), np.nan), "NaN"), (np.zeros((1, 4)), r"expected \(1, 3\)")],
)
def test_scores_that_are_no_ranking_are_refused(scores, reason):
    case = Case(np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match=reason):
        mask_scores(scores.astype(np.float32), [case], np.ones(3, dtype=bool))


TRAIN = [np.array(row) for row in ([0, 1, 0], [0, 2], [0], [1])]


def test_popularity_is_the_share_of_sequences_not_of_events():
    assert ItemPopularity(TRAIN, 5).share.tolist() == [0.75, 0.5, 0.25, 0, 0]


def test_novelty_is_the_mean_surprise_of_a_list():
    # One sequence more, that has them all: 4/5, 3/5, and 1/5 for what nobody met.
    found = ItemPopularity(TRAIN, 5).novelty(np.array([[0, 1], [3, 4], [2, -1]]))
    expected = [-(np.log2(4 / 5) + np.log2(3 / 5)) / 2, np.log2(5), -np.log2(2 / 5)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_average_popularity_and_the_share_of_the_head():
    known = ItemPopularity(
        [np.array([number % 3]) for number in range(9)] + [np.array([7])] * 9, 20
    )
    top = np.array([[7, 0], [4, 5]])
    np.testing.assert_allclose(known.average(top), [(9 / 18 + 3 / 18) / 2, 0], rtol=1e-6)
    assert known.head.sum() == 2  # the tenth of 20 items
    assert known.head_share(top).tolist() == [1.0, 0.0]


def test_an_empty_list_says_nothing():
    assert ItemPopularity(TRAIN, 5).average(np.array([[-1, -1]])).tolist() == [0]


def naive_gini(values):
    """Mean absolute difference of all pairs over twice the mean."""
    pairs = np.abs(values[:, None] - values[None, :]).mean()
    return pairs / (2 * values.mean())


@pytest.mark.parametrize("seed", range(5))
def test_gini_equals_the_mean_difference_of_all_pairs(seed):
    values = np.random.default_rng(seed).integers(0, 9, size=30).astype(float)
    assert gini(values) == pytest.approx(naive_gini(values))


def test_gini_of_equal_and_of_single_exposure():
    assert gini(np.full(7, 3.0)) == pytest.approx(0)
    assert gini(np.eye(10)[0]) == pytest.approx(0.9)


def test_exposures_leave_empty_places_out():
    shown = exposures(np.array([[1, 2], [1, -1]]), 4)
    assert shown.tolist() == [0, 2, 1, 0]
    assert coverage(shown) == 0.5


class GivenLists:
    name = "given"

    def __init__(self, row):
        self.row = np.array(row, dtype=np.float32)

    def scores(self, histories):
        return np.tile(self.row, (len(histories), 1))


def test_evaluate_reports_all_of_it(make_split):
    split = make_split([[0, 1], [1]], 4, [([0], [1]), ([0], [3])])
    found = evaluate(GivenLists([0, 3, 2, 1]), split, (1, 2))  # lists: 1, 2
    assert [found.values["HitRate@1"], found.values["HitRate@2"]] == [0.5, 0.5]
    assert [found.values["ARP@1"], found.values["ARP@2"]] == [1.0, 0.5]
    assert found.values["Novelty@1"] == pytest.approx(0)
    assert found.values["Novelty@2"] == pytest.approx(np.log2(3) / 2)
    assert [found.values["Coverage@1"], found.values["Coverage@2"]] == [0.25, 0.5]
    assert found.values["Gini@1"] == pytest.approx(0.75)
    assert found.per_case["HitRate@2"].tolist() == [1, 0]
    assert found.intervals == {}  # two cases are too few


class Fixed:
    name = "fixed"

    def __init__(self, row):
        self.row = np.array(row, dtype=np.float32)

    def scores(self, histories):
        return np.tile(self.row, (len(histories), 1))


@pytest.fixture
def catalog(tmp_path):
    pd.DataFrame(
        {
            "id": list("abcdef"),
            "title": "ring",
            "product_type": ["Rings", "Rings", "Lamps", "Lamps", "Lamps", None],
            "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    ).to_csv(tmp_path / "items.csv", index=False)
    return read_catalog(tmp_path)


def results(split, catalog, row, k=(2,)):
    found = segment_results(split, evaluate(Fixed(row), split, k), catalog)
    return {(one.by, one.name): one for one in found}


def test_recall_and_exposure_of_each_segment(make_split, catalog):
    # b and c are listed for everybody whose history is a; a and c after b.
    cases = [([0], [1, 3]), ([0], [2]), ([1], [0, 2, 4])]
    found = results(make_split([[0]], 6, cases), catalog, [5, 4, 3, 0, 0, 0])
    rings, lamps = found["category", "Rings"], found["category", "Lamps"]
    assert (rings.cases, rings.recall) == (2, 1.0)
    assert (lamps.cases, lamps.recall) == (3, pytest.approx((0 + 1 + 1 / 2) / 3))
    assert (rings.of_items, rings.of_shown) == (pytest.approx(1 / 3), 0.5)
    assert (lamps.of_items, lamps.of_shown) == (0.5, 0.5)
    # Nobody was asked for the product without a type.
    assert ("category", "none") not in found
    assert found["price", "up to 2.66667"].of_shown == 0.5
    assert found["price", "above 4.33333"].of_shown == 0.0
    assert found["price", "above 4.33333"].recall == 0.0
    assert rings.interval is None


def test_newcomers_are_told_from_shoppers_with_a_history(make_split, catalog):
    cases = [([0], [1]), ([0, 1, 2], [4])]
    found = results(make_split([[0]], 6, cases), catalog, [0, 9, 0, 0, 0, 1])
    assert (found["shopper", "newcomers"].cases, found["shopper", "newcomers"].recall) == (1, 1.0)
    assert (found["shopper", "known"].cases, found["shopper", "known"].recall) == (1, 0.0)
    assert found["shopper", "known"].of_items is None


def test_segments_have_intervals_with_enough_cases(make_split, catalog):
    cases = [([0], [1]), ([0], [5])] * 20
    found = results(make_split([[0]], 6, cases), catalog, [0, 9, 0, 0, 0, 1], (1,))
    low, high = found["shopper", "newcomers"].interval
    assert low < 0.5 < high
    assert found["category", "Rings"].interval == (1.0, 1.0)


def test_a_catalogue_of_one_category_is_split_by_its_last_level(make_split, tmp_path):
    kinds = ["Home > Beds", "Home > Lamps"]
    table = pd.DataFrame({"id": ["a", "b"], "title": "x", "product_type": kinds})
    table.to_csv(tmp_path / "items.csv", index=False)
    found = results(make_split([[0]], 2, [([0], [1])]), read_catalog(tmp_path), [0, 1], (1,))
    assert {name for by, name in found if by == "category"} == {"Lamps"}
    assert {by for by, _ in found} == {"category", "shopper"}


def blobs(noise):
    """Three classes of 20, 20 and 7 items around orthogonal directions."""
    labels = ["ring"] * 20 + ["lamp"] * 20 + ["hat"] * 7
    centres = {"ring": 0, "lamp": 1, "hat": 2}
    rows = np.eye(8, dtype=np.float32)[[centres[label] for label in labels]]
    return labels, rows + noise * np.random.default_rng(1).normal(size=rows.shape).astype("f4")


def test_better_features_need_fewer_shots():
    labels, clear = blobs(0.1)
    _, vague = blobs(1.5)
    found = few_shot({"clear": clear, "vague": vague}, labels, shots=(1, 5, 99))
    assert found.shots == (1, 5)  # no class has 99 left
    assert found.classes == ("hat", "lamp", "ring")
    assert found.tested == 10 + 10 + 3
    assert found.accuracy["clear"].mean(axis=1)[1] == 1.0
    assert found.accuracy["vague"].mean(axis=1)[0] < 0.8
    assert found.accuracy["clear"].shape == found.macro_f1["vague"].shape == (2, 3)
    assert found.confusion["clear"].sum() == 23


def test_tested_items_are_never_learned_from():
    # Labels without a reason: only who learns from what is tested can be right.
    found = few_shot({"identity": np.eye(40, dtype=np.float32)}, ["x", "y"] * 20, shots=(99,))
    assert found.shots == (10,)  # all that is left
    assert found.accuracy["identity"].mean(axis=1)[0] < 0.8


def test_the_same_seed_draws_the_same():
    labels, rows = blobs(1.0)
    first, again = (few_shot({"a": rows}, labels, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.accuracy["a"], again.accuracy["a"])


def test_one_class_or_classes_of_a_few_items_cannot_be_probed():
    rows = np.eye(20, dtype=np.float32)
    assert few_shot({"a": rows}, ["x"] * 20) is None
    assert few_shot({"a": rows}, ["x"] * 15 + ["y"] * 5) is None
    assert few_shot({"a": rows}, ["x"] * 10 + [None] * 10) is None
