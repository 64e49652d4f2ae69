"""Evaluation of rankers on splits, and comparison of the model with the best baseline.

Every case of a split is ranked in full. ``compare_all`` evaluates all splits of a catalogue and
trains once per training set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from newshelf.catalog.interactions import CatalogTables
from newshelf.evaluation.baselines import default_baselines
from newshelf.evaluation.compare_reports import case_digest
from newshelf.evaluation.metrics import (
    ItemPopularity,
    best_rank,
    covered,
    exposures,
    gini,
    hit_rate,
    hits,
    mask_scores,
    ndcg,
    recall,
    tie_order,
    top_items,
)
from newshelf.evaluation.significance import (
    MIN_GROUPS,
    PairedTest,
    case_groups,
    draws,
    exposure_interval,
    group_sums,
    mean_intervals,
    paired_test,
)
from newshelf.evaluation.types import (
    BoolArray,
    FloatArray,
    IntArray,
    Interval,
    Metrics,
    Ranker,
    Split,
)


@dataclass(frozen=True)
class Comparison:
    """All rankers on the same cases of one split.

    Raises:
        ValueError: without a baseline.
    """

    split: str
    description: str
    k: tuple[int, ...]
    items: int
    """Items that were ranked."""
    baselines: tuple[Metrics, ...]
    model: Metrics | None = None
    questions: str = ""
    """Equal in two reports that asked the same, so that their cases can be paired."""

    def __post_init__(self) -> None:
        if not self.baselines:
            raise ValueError(f"split {self.split}: a comparison needs a baseline")

    @property
    def rows(self) -> tuple[Metrics, ...]:
        """Baselines in their order, then the model."""
        return self.baselines if self.model is None else (*self.baselines, self.model)

    @property
    def cases(self) -> int:
        """Number of cases; the same for all rows."""
        return self.baselines[0].cases

    @property
    def best_baseline(self) -> Metrics:
        """The baseline with the highest NDCG at the first cut-off."""
        return max(self.baselines, key=lambda row: row.ndcg[self.k[0]])

    @property
    def ratio(self) -> float | None:
        """NDCG of the model / NDCG of the best baseline, at the first cut-off.

        None without a model, or when no baseline found anything.
        """
        best = self.best_baseline.ndcg[self.k[0]]
        if self.model is None or best == 0:
            return None
        return self.model.ndcg[self.k[0]] / best

    def ratio_interval(self, seed: int = 0) -> Interval | None:
        """95 % interval of :attr:`ratio`, by paired bootstrap over the groups of cases.

        It tells how much the ratio owes to these cases, not to the seed of the training. The
        best baseline is not chosen again in each resample. None with too few groups.
        """
        groups = self.best_baseline.groups
        if self.model is None or self.ratio is None or groups.max() + 1 < MIN_GROUPS:
            return None
        name = f"NDCG@{self.k[0]}"
        pair = np.stack([self.model.per_case[name], self.best_baseline.per_case[name]])
        sums = group_sums(pair.astype(np.float64), groups)
        model, baseline = sums @ draws(sums.shape[1], seed=seed).T
        found = baseline > 0
        low, high = np.quantile(model[found] / baseline[found], [0.025, 0.975])
        return float(low), float(high)

    def test(self, metric: str | None = None) -> PairedTest | None:
        """The model against the best baseline; None without a model.

        Args:
            metric: such as ``Recall@10``; None is NDCG at the first cut-off.
        """
        if self.model is None:
            return None
        name = metric or f"NDCG@{self.k[0]}"
        return paired_test(
            self.model.per_case[name], self.best_baseline.per_case[name], self.model.groups
        )


BATCH = 256
"""Histories scored at once; with 20,000 items, their scores are 20 MB."""


def evaluate(
    ranker: Ranker, split: Split, k: Sequence[int] = (10, 20), *, batch: int = BATCH
) -> Metrics:
    """Rank all candidates for every case and measure the lists.

    Items of a case's history are not ranked. Intervals take the cases of one group together.

    Args:
        ranker: fitted on ``split.train`` and nothing later.
        split: the cases, and what is ranked.
        k: cut-offs, each ≥ 1.
        batch: histories scored at once; bounds the memory, changes no result.

    Raises:
        ValueError: when the split has no case, or the scores have NaN or a wrong shape.
    """
    if not split.cases:
        raise ValueError(f"split {split.name} has no case")
    tops, hit, reciprocal = _ranked(ranker, split, max(k), batch)
    known = ItemPopularity(split.train, split.n_items)
    per_case = {}
    for cutoff in k:
        shown = tops[:, :cutoff]
        per_case[f"Recall@{cutoff}"] = recall(hit, split.cases, cutoff)
        per_case[f"NDCG@{cutoff}"] = ndcg(hit, split.cases, cutoff)
        per_case[f"HitRate@{cutoff}"] = hit_rate(hit, cutoff)
        per_case[f"Novelty@{cutoff}"] = known.novelty(shown)
        per_case[f"ARP@{cutoff}"] = known.average(shown)
        per_case[f"Head@{cutoff}"] = known.head_share(shown)
    per_case["MRR"] = reciprocal
    groups = case_groups(split.cases)
    found = mean_intervals(np.stack(list(per_case.values())), groups)
    intervals = dict(zip(per_case, found, strict=True)) if found else {}
    values = {name: float(column.mean()) for name, column in per_case.items()}
    for name, statistic in (("Coverage", covered), ("Gini", gini)):
        for cutoff in k:
            shown = tops[:, :cutoff]
            counted = exposures(shown, split.n_items)[split.candidates]
            values[f"{name}@{cutoff}"] = statistic(counted)
            interval = exposure_interval(shown, groups, split.candidates, statistic)
            if interval is not None:
                intervals[f"{name}@{cutoff}"] = interval

    def by_cutoff(name: str) -> dict[int, float]:
        return {cutoff: values[f"{name}@{cutoff}"] for cutoff in k}

    return Metrics(
        ranker=ranker.name,
        split=split.name,
        cases=len(split.cases),
        recall=by_cutoff("Recall"),
        ndcg=by_cutoff("NDCG"),
        mrr=values["MRR"],
        coverage=by_cutoff("Coverage"),
        hit_rate=by_cutoff("HitRate"),
        novelty=by_cutoff("Novelty"),
        popularity=by_cutoff("ARP"),
        head_share=by_cutoff("Head"),
        gini=by_cutoff("Gini"),
        intervals=intervals,
        per_case={name: column.astype(np.float32) for name, column in per_case.items()},
        groups=groups,
    )


def _ranked(
    ranker: Ranker, split: Split, k: int, batch: int
) -> tuple[IntArray, BoolArray, npt.NDArray[np.float64]]:
    """(C, K) the first K of each list and where they are right; (C,) 1 / rank of the first."""
    order = tie_order(split.n_items)
    tops, hit, reciprocal = [], [], []
    for start in range(0, len(split.cases), batch):
        cases = split.cases[start : start + batch]
        scores = ranker.scores([case.history for case in cases])
        masked = mask_scores(scores, cases, split.candidates)
        tops.append(top_items(masked, k, order))
        hit.append(hits(tops[-1], cases, split.n_items))
        reciprocal.append(1 / best_rank(masked, cases, order))
    return np.concatenate(tops), np.concatenate(hit), np.concatenate(reciprocal)


def compare(
    baselines: Sequence[Ranker],
    split: Split,
    k: Sequence[int] = (10, 20),
    *,
    model: Ranker | None = None,
    console: Console | None = None,
) -> Comparison:
    """Evaluate all baselines, and the model when there is one, on the same cases.

    Args:
        baselines: at least one, fitted on ``split.train``.
        split: the cases.
        k: cut-offs; the first one decides which baseline is the best, by NDCG.
        model: what is compared with the best baseline.
        console: where the progress is shown; None is standard error.
    """
    rankers = [*baselines] if model is None else [*baselines, model]
    rows = []
    with Progress(console=console or Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"evaluating {split.name}", total=len(rankers))
        for ranker in rankers:
            progress.update(task, description=f"evaluating {split.name}: {ranker.name}")
            rows.append(evaluate(ranker, split, k))
            progress.advance(task)
    return Comparison(
        split=split.name,
        description=split.description,
        k=tuple(k),
        items=int(split.candidates.sum()),
        baselines=tuple(rows[: len(baselines)]),
        model=rows[-1] if model is not None else None,
        questions=case_digest(split),
    )


def compare_all(
    splits: Sequence[Split],
    catalog: CatalogTables,
    *,
    k: Sequence[int] = (10, 20),
    features: FloatArray | None = None,
    fit_model: Callable[[Split], Ranker] | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> list[Comparison]:
    """Compare the model with the default baselines on every split.

    Splits that share their ``train`` list (``cold`` and ``cold-among-new``) share the fitted
    baselines and the fitted model.

    Args:
        splits: as :func:`newshelf.evaluation.splits.default_splits` gives them.
        catalog: for the baselines.
        k: cut-offs.
        features: (n_items, D) float32 for the content baselines; None leaves them out.
        fit_model: fits the model on ``split.train`` alone; called once per distinct training.
        seed: of the random baseline.
        console: where the progress is shown; None is standard error.
    """
    fitted: dict[int, tuple[list[Ranker], Ranker | None]] = {}
    comparisons = []
    for split in splits:
        # The splits keep their lists alive, so an identity is not given away twice.
        if id(split.train) not in fitted:
            baselines = default_baselines(split, catalog, features, seed)
            fitted[id(split.train)] = baselines, fit_model(split) if fit_model else None
        baselines, model = fitted[id(split.train)]
        comparisons.append(compare(baselines, split, k, model=model, console=console))
    return comparisons
