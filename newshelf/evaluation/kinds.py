"""Kinds of recommendations compared with baselines, on the held-out part of the first split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import EventType
from newshelf.evaluation.baselines import (
    MAX_ITEMS,
    CategoryPopularity,
    ContentNeighbours,
    ItemKnn,
    Popularity,
    recent_counts,
)
from newshelf.evaluation.evaluate import compare
from newshelf.evaluation.significance import mean_intervals, paired_test
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
    name: str
    scores: Callable[[Sequence[IntArray]], FloatArray]


def evaluate_kinds(
    split: Split, catalog: Catalog, *, model: Ranker, blend: Blend | None, embeddings: FloatArray
) -> list[KindResult]:
    """Compare the kinds with their baselines; those with too few cases are left out.

    ``model`` and ``blend`` are trained on ``split.train``; ``embeddings`` are ``(n_items, D)``
    float32 of the model, of unit length.
    """
    by_time = split.train.timestamps is not None
    cut_s = max((int(times[-1]) for times in split.train.timestamps or ()), default=0)
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
        growing, new = _growing(split), _newest(catalog.items, cut_s, model)
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
    again = None if catalog.events is None or not by_time else _buy_again(catalog.events, cut_s)
    return results if again is None else [*results, again]


def _compared(
    kind: str, task: str, split: Split, ranker: Ranker, baselines: Sequence[Ranker]
) -> KindResult:
    comparison = compare(baselines, split, [K], model=ranker)
    best, ours, test = comparison.best_baseline, comparison.rows[-1], comparison.test()
    metric = f"NDCG@{K}"
    return KindResult(
        kind,
        task,
        comparison.cases,
        ours.values[metric],
        ours.intervals.get(metric),
        best.ranker,
        best.values[metric],
        best.intervals.get(metric),
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
    row = growth.astype(np.float32)
    return _Scores("trending", lambda histories: np.tile(row, (len(histories), 1)))


def _newest(items: pd.DataFrame, cut_s: int, model: Ranker) -> Ranker:
    """Rank the newest products of the training's end by the model."""
    created = pd.to_numeric(items["created_at"]).astype("Float64")
    newest = created[created <= cut_s].nlargest(_NEWEST).index.to_numpy()

    def scores(histories: Sequence[IntArray]) -> FloatArray:
        ranked = model.scores(histories)
        found = np.zeros_like(ranked)
        found[:, newest] = ranked[:, newest] - ranked.min() + 1
        return found

    return _Scores("new", scores)


def _buy_again(events: pd.DataFrame, cut_s: int) -> KindResult | None:
    """Ask for the purchased products that shoppers purchase again after the training's end."""
    bought = events[events["event_type"].astype(str) == EventType.PURCHASE]
    early = bought[bought["timestamp"] <= cut_s]
    later = bought[bought["timestamp"] > cut_s]
    age_days = (cut_s - early["timestamp"]) / _DAY_S
    known = early.assign(weight=2.0 ** (-age_days / _HALF_LIFE_DAYS)).groupby(
        ["user_id", "item_id"]
    )
    table = known.agg({"weight": "sum", "timestamp": "max"})
    table["again"] = table.index.isin(pd.MultiIndex.from_frame(later[["user_id", "item_id"]]))
    by_user = table.groupby("user_id")
    wanted = by_user["again"].sum()
    if (wanted > 0).sum() < _MIN_CASES:
        return None
    gains = 1 / np.log2(np.arange(2, K + 2))
    ideal = np.cumsum(gains)[wanted.clip(1, K) - 1]

    def ndcg(column: str) -> npt.NDArray[np.float64]:
        rank = by_user[column].rank(ascending=False, method="first").to_numpy().astype(np.int64)
        gain = np.where(table["again"] & (rank <= K), gains[np.minimum(rank, K) - 1], 0)
        summed = pd.Series(gain, table.index).groupby("user_id").sum().to_numpy(dtype=np.float64)
        return np.asarray((summed / ideal)[wanted > 0], dtype=np.float64)

    ours, theirs = ndcg("weight"), ndcg("timestamp")
    groups = np.arange(len(ours))
    both = mean_intervals(np.stack([ours, theirs]), groups)
    return KindResult(
        "buy_again",
        "purchases → purchases of the same products",
        len(ours),
        float(ours.mean()),
        None if both is None else both[0],
        "most recent",
        float(theirs.mean()),
        None if both is None else both[1],
        paired_test(ours.astype(np.float32), theirs.astype(np.float32), groups).verdict,
    )
