"""Rankers, cases and rows that the tasks on events and baskets share."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pandas as pd
from torch import Tensor

from benchmarks.results import Row, RowBuilder
from benchmarks.transfer.command import TransferContext
from newshelf.catalog.catalog import Catalog
from newshelf.evaluation.baselines import Ease, default_baselines
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.types import BoolArray, FloatArray, IntArray, Ranker, Split
from newshelf.nn.spec import FusionKind
from newshelf.training.finetune import embed, train_source
from newshelf.training.labels import choose_categories, head_labels
from newshelf.training.ranking import BlendRanker, Ranking, train_ranking
from newshelf.training.run import Run
from newshelf.training.siamese import score_all


@dataclass(frozen=True, eq=False)
class Merged:
    """A data set with its held-out part, and which rows are held out."""

    catalog: Catalog
    kept_back_events: BoolArray
    """``(events,)``."""
    kept_back_baskets: BoolArray
    """``(baskets,)``."""
    has_kept_back: bool


def merged(context: TransferContext, name: str) -> Merged:
    """Return ``data/NAME`` merged with ``kept-back/NAME``, if any; new items come last."""
    catalog = context.catalog(name)
    other = context.kept_back_catalog(name)
    if other is None:
        nothing = [
            np.zeros(0 if table is None else len(table), dtype=np.bool_)
            for table in (catalog.events, catalog.baskets)
        ]
        return Merged(catalog, nothing[0], nothing[1], has_kept_back=False)
    new = other.items[~other.items["id"].isin(catalog.items["id"])].copy()
    away = os.path.relpath(other.folder, catalog.folder)
    new["image_link"] = [None if link is None else f"{away}/{link}" for link in new["image_link"]]
    items = pd.concat([catalog.items, new], ignore_index=True)
    events, later_events = _joined(catalog.events, other.events)
    baskets, later_baskets = _joined(catalog.baskets, other.baskets)
    joined = replace(catalog, items=items, events=events, baskets=baskets)
    return Merged(joined, later_events, later_baskets, has_kept_back=True)


def _joined(
    first: pd.DataFrame | None, second: pd.DataFrame | None
) -> tuple[pd.DataFrame | None, BoolArray]:
    """Return both tables in one, and which rows are from the second."""
    parts = [part for part in (first, second) if part is not None]
    if not parts:
        return None, np.zeros(0, dtype=np.bool_)
    size = 0 if second is None else len(second)
    joined = pd.concat(parts, ignore_index=True)
    later: BoolArray = np.arange(len(joined)) >= len(joined) - size
    return joined, later


_SMALL_RIDGE = 2.0
"""λ of a second EASE, for data of few baskets."""


@dataclass(frozen=True)
class Measure:
    """A metric of one split."""

    name: str
    split: str
    metric: str
    """Such as ``NDCG@10``."""


@dataclass(frozen=True)
class ScorerRanker:
    """The Siamese scorer without other signals."""

    ranking: Ranking
    embeddings: Tensor
    name: str = "Siamese scorer alone"

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return ``(len(histories), N)`` float32."""
        return score_all(self.ranking.scorer, self.embeddings, histories)


def embedded(context: TransferContext, catalog: Catalog, seed: int) -> tuple[Tensor, FloatArray]:
    """Return ``(N, 512)`` embeddings fine-tuned as ``train`` does, and the frozen features.

    Neither depends on events or baskets.
    """
    labels = head_labels(catalog, choose_categories(catalog, "auto"))
    settings = context.settings.model_copy(update={"seed": seed})
    backbone = replace(context, settings=settings).backbone(catalog, labels)
    train_source(
        backbone.encoder,
        backbone.table,
        labels,
        settings.finetune,
        Run(seed=seed, console=context.console, quiet=True),
        modality_dropout=settings.fusion.modality_dropout,
    )
    return embed(backbone.encoder, backbone.table), backbone.table.content()


def rankers(
    context: TransferContext,
    catalog: Catalog,
    split: Split,
    embeddings: Tensor,
    features: FloatArray,
    seed: int,
) -> tuple[list[Ranker], tuple[ScorerRanker, BlendRanker]]:
    """Return the baselines, and Newshelf's scorer and whole ranking."""
    baselines = [*default_baselines(split, catalog, features, seed), Ease(split, _SMALL_RIDGE)]
    ranking = _trained(context, split, embeddings, seed)
    return baselines, (ScorerRanker(ranking, embeddings), BlendRanker(ranking, embeddings))


def rankers_by_seed(
    context: TransferContext, catalog: Catalog, splits: Sequence[Split]
) -> list[tuple[list[Ranker], tuple[ScorerRanker, BlendRanker]]]:
    """Return the ``rankers`` of each seed, trained on its split."""
    found = []
    for seed, split in zip(context.seeds, splits, strict=True):
        context.console.print(f"{catalog.name}, seed {seed}")
        embeddings, features = embedded(context, catalog, seed)
        found.append(rankers(context, catalog, split, embeddings, features, seed))
    return found


def by_fusion(context: TransferContext, catalog: Catalog, split: Split, seed: int) -> list[Ranker]:
    """Return the whole ranking with each kind of fusion, named after it."""
    found: list[Ranker] = []
    for kind in get_args(FusionKind):
        fusion = context.settings.fusion
        other = context.settings.model_copy(
            update={"fusion": fusion.model_copy(update={"kind": kind})}
        )
        embeddings, _ = embedded(replace(context, settings=other), catalog, seed)
        found.append(BlendRanker(_trained(context, split, embeddings, seed), embeddings, kind))
    return found


def _trained(context: TransferContext, split: Split, embeddings: Tensor, seed: int) -> Ranking:
    return train_ranking(
        embeddings,
        split.train,
        context.settings.scorer,
        Run(seed=seed, console=context.console, quiet=True),
    )


def rows_of(
    measures: Sequence[Measure],
    splits: Mapping[str, Sequence[Split]],
    fitted: Sequence[tuple[Sequence[Ranker], Sequence[Ranker]]],
    k: int,
) -> list[Row]:
    """Return a row per measure and ranker.

    ``splits`` has one split per seed by name; ``fitted`` are the rankers of each seed, in one
    order.
    """
    rows = RowBuilder()
    for number, (simple, own) in enumerate(fitted):
        for ranker in (*simple, *own):
            metrics = {
                name: evaluate(ranker, parts[number], (k,)) for name, parts in splits.items()
            }
            measured = {one.name: metrics[one.split].values[one.metric] for one in measures}
            rows.add(ranker.name, measured, baseline=ranker in simple)
    return rows.rows([measure.name for measure in measures])
