"""Put every case of a split to a ranker and measure its full rankings."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from newshelf.evaluation.bootstrap import case_groups, mean_intervals
from newshelf.evaluation.cases import case_digest
from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.exposure import Popularity, covered, exposures, gini
from newshelf.evaluation.jackknife import exposure_interval
from newshelf.evaluation.metrics import (
    best_rank,
    hit_rate,
    hits,
    mask_scores,
    ndcg,
    recall,
    tie_order,
    top_items,
)
from newshelf.evaluation.types import BoolArray, IntArray, Metrics, Ranker, Split

__all__ = ["BATCH", "compare", "evaluate"]

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
    known = Popularity(split.train, split.n_items)
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
