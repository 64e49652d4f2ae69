"""Evaluation of rankers on splits by full ranking, and comparison with the best baseline."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from newshelf.catalog.catalog import Catalog
from newshelf.evaluation.baselines import default_baselines
from newshelf.evaluation.metrics import (
    ItemPopularity,
    best_rank,
    coverage,
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
    """Metrics of all rankers on the same cases of one split."""

    split: str
    description: str
    k: tuple[int, ...]
    items: int
    """Number of candidates."""
    baselines: tuple[Metrics, ...]
    model: Metrics | None = None
    questions: str = ""
    """Digest of the cases: equal in two reports whose cases can be paired."""

    def __post_init__(self) -> None:
        if not self.baselines:
            raise ValueError(f"split {self.split}: a comparison needs a baseline")

    @property
    def _main(self) -> str:
        return f"NDCG@{self.k[0]}"

    @property
    def rows(self) -> tuple[Metrics, ...]:
        """Return the baselines in order, then the model."""
        return self.baselines if self.model is None else (*self.baselines, self.model)

    @property
    def cases(self) -> int:
        """Return the number of cases, which is the same for all rows."""
        return self.baselines[0].cases

    @property
    def best_baseline(self) -> Metrics:
        """Return the baseline with the highest NDCG at the first cut-off."""
        return max(self.baselines, key=lambda row: row.values[self._main])

    @property
    def ratio(self) -> float | None:
        """Return NDCG of model / best baseline at the first cut-off; None if there is none."""
        best = self.best_baseline.values[self._main]
        if self.model is None or best == 0:
            return None
        return self.model.values[self._main] / best

    def ratio_interval(self) -> Interval | None:
        """Return the 95 % interval of :attr:`ratio`, by paired bootstrap over groups of cases.

        The best baseline is the same in all resamples. None with too few groups.
        """
        groups = self.best_baseline.groups
        if self.model is None or self.ratio is None or groups.max() + 1 < MIN_GROUPS:
            return None
        pair = np.stack([row.per_case[self._main] for row in (self.model, self.best_baseline)])
        sums = group_sums(pair.astype(np.float64), groups)
        model, baseline = sums @ draws(sums.shape[1]).T
        found = baseline > 0
        low, high = np.quantile(model[found] / baseline[found], [0.025, 0.975])
        return float(low), float(high)

    def test(self) -> PairedTest | None:
        """Return the paired test of model and best baseline, of NDCG at the first cut-off."""
        if self.model is None:
            return None
        ours, theirs = (row.per_case[self._main] for row in (self.model, self.best_baseline))
        return paired_test(ours, theirs, self.model.groups)


BATCH = 256
"""Histories scored at once: 20 MB of scores for 20,000 items."""


def evaluate(
    ranker: Ranker, split: Split, k: Sequence[int] = (10, 20), *, batch: int = BATCH
) -> Metrics:
    """Rank all candidates for every case, without the items of its history, and measure it."""
    if not split.cases:
        raise ValueError(f"split {split.name} has no case")
    tops, hit, reciprocal = _ranked(ranker, split, max(k), batch)
    known = ItemPopularity(split.train.sequences, split.n_items)
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
    for name, statistic in (("Coverage", coverage), ("Gini", gini)):
        for cutoff in k:
            shown = tops[:, :cutoff]
            counted = exposures(shown, split.n_items)[split.candidates]
            values[f"{name}@{cutoff}"] = statistic(counted)
            interval = exposure_interval(shown, groups, split.candidates, statistic)
            if interval is not None:
                intervals[f"{name}@{cutoff}"] = interval
    return Metrics(
        ranker=ranker.name,
        split=split.name,
        cases=len(split.cases),
        values=values,
        intervals=intervals,
        per_case={name: column.astype(np.float32) for name, column in per_case.items()},
        groups=groups,
        top=tops[:, : k[0]],
    )


def _ranked(
    ranker: Ranker, split: Split, k: int, batch: int
) -> tuple[IntArray, BoolArray, npt.NDArray[np.float64]]:
    """Return (C, K) the first K of each list, (C, K) hits, and (C,) the reciprocal rank."""
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


def case_digest(split: Split) -> str:
    """Return a digest of all histories, answers and ranked items."""
    digest = hashlib.sha256()
    digest.update(np.packbits(split.candidates).tobytes())
    for case in split.cases:
        for part in (case.history, case.relevant):
            digest.update(np.append(part, -1).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def compare(
    baselines: Sequence[Ranker],
    split: Split,
    k: Sequence[int] = (10, 20),
    *,
    model: Ranker | None = None,
    console: Console | None = None,
) -> Comparison:
    """Evaluate all baselines, and the model if there is one, on the same cases.

    NDCG at the first cut-off selects the best baseline. All are fitted on ``split.train``.
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
    catalog: Catalog,
    *,
    k: Sequence[int] = (10, 20),
    features: FloatArray | None = None,
    fit_model: Callable[[Split], Ranker] | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> list[Comparison]:
    """Compare the model with the default baselines on every split.

    Splits that share their ``train`` share fitted baselines and model. Without ``features``
    (n_items, D) float32, there are no content baselines.
    """
    fitted: dict[int, tuple[list[Ranker], Ranker | None]] = {}
    comparisons = []
    for split in splits:
        # The splits keep their data alive, so an id is not reused.
        if id(split.train) not in fitted:
            baselines = default_baselines(split, catalog, features, seed)
            fitted[id(split.train)] = baselines, fit_model(split) if fit_model else None
        baselines, model = fitted[id(split.train)]
        comparisons.append(compare(baselines, split, k, model=model, console=console))
    return comparisons
