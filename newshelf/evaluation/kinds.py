"""Kinds of recommendations compared with baselines, as far as the catalogue's data permit.

The kinds are asked on the held-out part of the catalogue's first split, with links, popularity and
model from its training part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import EventType
from newshelf.evaluation.baselines import CategoryPopularity, ContentNeighbours, Popularity
from newshelf.evaluation.evaluate import compare
from newshelf.evaluation.item_to_item import MAX_ITEMS, ItemKnn, recent_counts
from newshelf.evaluation.metrics import hits, ndcg
from newshelf.evaluation.significance import case_groups, mean_intervals, paired_test
from newshelf.evaluation.types import Case, FloatArray, IntArray, Interval, Ranker, Split
from newshelf.nn.blend import Blend, popularity_growth

K = 10
_MIN_CASES = 30
_DAY_S = 86_400
_RECENT_DAYS = 7.0
_NEWEST = 100
_HALF_LIFE_DAYS = 60.0
_FIRST = np.float32(1e6)
"""Puts one ranking before another, whose scores are smaller."""


@dataclass(frozen=True)
class KindResult:
    """NDCG@10 of a kind and of its best baseline on the same cases."""

    kind: str
    task: str
    cases: int
    ndcg: float
    interval: Interval | None
    """95 %, as ``baseline_interval``; None with too few cases."""
    baseline: str
    baseline_ndcg: float
    baseline_interval: Interval | None
    verdict: str
    """Of the paired test."""


@dataclass(frozen=True)
class _Scores:
    """A ranker made of a function."""

    name: str
    scores: Callable[[Sequence[IntArray]], FloatArray]


def evaluate_kinds(
    split: Split,
    catalog: Catalog,
    *,
    model: Ranker,
    blend: Blend | None,
    embeddings: FloatArray,
) -> list[KindResult]:
    """Compare the kinds with their baselines; those with too few cases are left out.

    Args:
        split: by time, or of baskets.
        catalog: for product types, dates and events.
        model: trained on ``split.train``.
        blend: the model's links; None without.
        embeddings: ``(n_items, D)`` float32 of the model, of unit length.
    """
    by_time = split.train_timestamps is not None
    popular, similar = Popularity(split, days=None), ContentNeighbours(split, embeddings, "mean")
    types = [kind if isinstance(kind, str) else "" for kind in catalog.items["product_type"]]
    codes = np.unique(types, return_inverse=True)[1]
    knn = [ItemKnn(split)] if split.n_items <= MAX_ITEMS else []
    one = [replace(case, history=case.history[-1:]) for case in split.cases]
    other = [
        replace(case, relevant=found)
        for case in split.cases
        if (found := case.relevant[~np.isin(codes[case.relevant], codes[case.history])]).size
    ]
    wanted = "next products" if by_time else "another product of the basket"
    asked: list[tuple[str, str, Ranker, list[Ranker], Sequence[Case]]] = [
        ("similar", f"one product → {wanted}", similar, [CategoryPopularity(split, types)], one),
        ("cart", f"products → {wanted}, of other types", _other_types(model, codes),
         [_other_types(popular, codes), *(_other_types(ranker, codes) for ranker in knn)], other),
    ]  # fmt: skip
    if blend is not None:
        together = _before(_linked(blend, model), similar)
        asked.append(("bought_together", f"one product → {wanted}", together, [popular, *knn], one))
    if by_time:
        task, cases = "nothing → next products of all shoppers", split.cases
        growing, new = _growing(split), _newest(split, catalog, model)
        asked += [
            ("trending", task, _before(growing, popular), [popular], cases),
            ("popular", task, popular, [Popularity(split)], cases),
            ("new", "products → next products", _before(new, popular), [popular], cases),
        ]
    results = [
        _compared(kind, task, replace(split, name=kind, cases=list(cases)), ranker, baselines)
        for kind, task, ranker, baselines, cases in asked
        if len(cases) >= _MIN_CASES
    ]
    again = None if catalog.events is None or not by_time else _buy_again(split, catalog)
    return results if again is None else [*results, again]


def _compared(
    kind: str, task: str, split: Split, ranker: Ranker, baselines: Sequence[Ranker]
) -> KindResult:
    comparison = compare(baselines, split, [K], model=ranker)
    best, ours, test = comparison.best_baseline, comparison.rows[-1], comparison.test()
    return KindResult(
        kind,
        task,
        comparison.cases,
        ours.ndcg[K],
        ours.intervals.get(f"NDCG@{K}"),
        best.ranker,
        best.ndcg[K],
        best.intervals.get(f"NDCG@{K}"),
        test.verdict if test is not None else "",
    )


def _before(first: Ranker, then: Ranker) -> Ranker:
    """Rank what the first ranker scores above 0, then the rest."""

    def scores(histories: Sequence[IntArray]) -> FloatArray:
        front = first.scores(histories)
        return np.where(front > 0, front + _FIRST, then.scores(histories)).astype(np.float32)

    return _Scores(first.name, scores)


def _other_types(ranker: Ranker, codes: IntArray) -> Ranker:
    """Rank only products of other types than the history has."""

    def scores(histories: Sequence[IntArray]) -> FloatArray:
        found = ranker.scores(histories).copy()
        for row, history in enumerate(histories):
            found[row, np.isin(codes, codes[history])] = -np.inf
        return found

    return _Scores(ranker.name, scores)


def _linked(blend: Blend, model: Ranker) -> Ranker:
    """Rank the products that are linked with the history by the model."""

    def scores(histories: Sequence[IntArray]) -> FloatArray:
        ranked = model.scores(histories)
        found = np.zeros_like(ranked)
        for row, history in enumerate(histories):
            items, _ = blend.followed(history, np.ones(len(history), dtype=np.float32))
            found[row, items] = ranked[row, items] - ranked[row].min() + 1
        return found

    return _Scores("bought together", scores)


def _growing(split: Split) -> Ranker:
    total, recent = recent_counts(split, np.inf), np.floor(recent_counts(split, _RECENT_DAYS))
    earlier = np.floor(total) - recent
    growth = popularity_growth(
        recent, earlier, earlier_total=float(earlier.sum()), items=split.n_items
    )
    growth[recent == 0] = 0
    return _everyone("trending", growth)


def _everyone(name: str, scores: npt.NDArray[np.float64]) -> Ranker:
    return _Scores(name, lambda histories: np.tile(scores.astype(np.float32), (len(histories), 1)))


def _newest(split: Split, catalog: Catalog, model: Ranker) -> Ranker:
    """Rank the newest products of the training's end by the model."""
    created = pd.to_numeric(catalog.items["created_at"]).to_numpy(dtype=np.float64, na_value=np.nan)
    created[~(created <= _cut_s(split))] = -np.inf
    newest = np.argsort(-created, kind="stable")[:_NEWEST]
    newest = newest[np.isfinite(created[newest])]

    def scores(histories: Sequence[IntArray]) -> FloatArray:
        found = np.zeros((len(histories), split.n_items), dtype=np.float32)
        ranked = model.scores(histories)[:, newest]
        found[:, newest] = ranked - ranked.min(initial=0) + 1
        return found

    return _Scores("new", scores)


def _cut_s(split: Split) -> int:
    return max(int(times[-1]) for times in split.train_timestamps or [np.zeros(1, np.int64)])


def _buy_again(split: Split, catalog: Catalog) -> KindResult | None:
    """Ask for the products that shoppers purchased before and after the training's end."""
    events, cut_s = catalog.events, _cut_s(split)
    if events is None:
        return None
    bought = events[events["event_type"].astype(str) == EventType.PURCHASE]
    item = bought["item_id"].map({name: row for row, name in enumerate(catalog.items["id"])})
    bought = bought.assign(item=item).dropna(subset="item").astype({"item": np.int64})
    early = bought["timestamp"] <= cut_s
    cases, ranked = [], []
    later = bought[~early].groupby("user_id")["item"].unique()
    for user, before in bought[early].groupby("user_id"):
        again = np.intersect1d(later.get(user, ()), before["item"]).astype(np.int64)
        if len(again):
            age_days = (cut_s - before["timestamp"]) / _DAY_S
            weights = before.assign(weight=2.0 ** (-age_days / _HALF_LIFE_DAYS)).groupby("item")
            cases.append(Case(again, again))
            ranked.append((weights["weight"].sum(), weights["timestamp"].max()))
    if len(cases) < _MIN_CASES:
        return None
    both = np.stack([_ndcg_of(lists, cases, split.n_items) for lists in zip(*ranked, strict=True)])
    groups = case_groups(cases)
    ours, theirs = mean_intervals(both, groups) or (None, None)
    kind, baseline = both.mean(axis=1).tolist()
    test = paired_test(both[0].astype(np.float32), both[1].astype(np.float32), groups)
    task = "purchases → purchases of the same products"
    return KindResult(
        "buy_again", task, len(cases), kind, ours, "most recent", baseline, theirs, test.verdict
    )


def _ndcg_of(
    scores: Sequence["pd.Series[float]"], cases: Sequence[Case], n_items: int
) -> npt.NDArray[np.float64]:
    top = np.full((len(cases), K), -1, dtype=np.int64)
    for row, of_case in enumerate(scores):
        best = of_case.sort_values(ascending=False, kind="stable").index[:K]
        top[row, : len(best)] = best
    return ndcg(hits(top, cases, n_items), cases, K)
