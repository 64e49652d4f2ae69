"""Put every case of a split to a ranker and measure its full rankings."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import Progress

from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.metrics import best_rank, hits, mask_scores, ndcg, recall, tie_order
from newshelf.evaluation.metrics import top_items as top_k
from newshelf.evaluation.types import BoolArray, Metrics, Ranker, Split

__all__ = ["BATCH", "compare", "evaluate"]

BATCH = 256
"""Histories scored at once; with 20,000 items, their scores are 20 MB."""


def evaluate(
    ranker: Ranker, split: Split, k: Sequence[int] = (10, 20), *, batch: int = BATCH
) -> Metrics:
    """Rank all candidates for every case and average the metrics over the cases.

    Items of a case's history are not ranked.

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
    order = tie_order(split.n_items)
    shown = {cutoff: np.zeros(split.n_items, dtype=np.bool_) for cutoff in k}
    recalls: dict[int, list[np.ndarray]] = {cutoff: [] for cutoff in k}
    ndcgs: dict[int, list[np.ndarray]] = {cutoff: [] for cutoff in k}
    reciprocal = []
    for start in range(0, len(split.cases), batch):
        cases = split.cases[start : start + batch]
        scores = ranker.scores([case.history for case in cases])
        masked = mask_scores(scores, cases, split.candidates)
        top = top_k(masked, max(k), order)
        hit = hits(top, cases, split.n_items)
        reciprocal.append(1 / best_rank(masked, cases, order))
        for cutoff in k:
            recalls[cutoff].append(recall(hit, cases, cutoff))
            ndcgs[cutoff].append(ndcg(hit, cases, cutoff))
            _show(shown[cutoff], top[:, :cutoff])
    per_case = {cutoff: np.concatenate(parts) for cutoff, parts in ndcgs.items()}
    rankable = int(split.candidates.sum())
    return Metrics(
        ranker=ranker.name,
        split=split.name,
        cases=len(split.cases),
        recall={cutoff: float(np.concatenate(parts).mean()) for cutoff, parts in recalls.items()},
        ndcg={cutoff: float(values.mean()) for cutoff, values in per_case.items()},
        mrr=float(np.concatenate(reciprocal).mean()),
        coverage={cutoff: float(seen.sum()) / rankable for cutoff, seen in shown.items()},
        ndcg_per_case={cutoff: vals.astype(np.float32) for cutoff, vals in per_case.items()},
    )


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
    )


def _show(seen: BoolArray, top: np.ndarray) -> None:
    """Mark the items of the first K, in place."""
    seen[top[top >= 0]] = True
