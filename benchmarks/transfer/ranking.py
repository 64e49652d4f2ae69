"""What the tasks on events and baskets share: embeddings, the rankers, and their rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from torch import Tensor

from benchmarks.transfer.context import Context
from benchmarks.transfer.result import Row
from newshelf.catalog import Catalog
from newshelf.evaluation.baselines import Ease, default_baselines
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.types import FloatArray, IntArray, Metrics, Ranker, Split
from newshelf.nn.spec import FusionKind
from newshelf.transfer.build import build_backbone
from newshelf.transfer.finetune import embed, train_source
from newshelf.transfer.labels import choose_categories, head_labels
from newshelf.transfer.ranking import BlendRanker, Ranking, train_ranking
from newshelf.transfer.run import Run
from newshelf.transfer.siamese import score_all

__all__ = ["Measure", "ScorerRanker", "by_fusion", "embedded", "rankers", "rows_of"]

_SMALL_RIDGE = 2.0
"""A second EASE, for data of few baskets, so that the baseline is not held back by its λ."""


@dataclass(frozen=True)
class Measure:
    """One number of one split."""

    name: str
    split: str
    of: Callable[[Metrics], float]


@dataclass(frozen=True)
class ScorerRanker:
    """The Siamese scorer alone, without the signals beside it."""

    ranking: Ranking
    embeddings: Tensor
    name: str = "Siamese scorer alone"

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """``(len(histories), N)`` float32."""
        return score_all(self.ranking.scorer, self.embeddings, histories)


def embedded(context: Context, catalog: Catalog, seed: int) -> tuple[Tensor, FloatArray]:
    """Fine-tuned embeddings ``(N, 512)``, as ``train`` makes them, and the frozen features.

    Neither looks at events or baskets.
    """
    labels = head_labels(catalog, choose_categories(catalog, "auto"))
    settings = context.settings.model_copy(update={"seed": seed})
    backbone = build_backbone(
        catalog,
        settings,
        {head: label.classes for head, label in labels.items()},
        context.work / "features" / catalog.name,
        context.console,
    )
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
    context: Context,
    catalog: Catalog,
    split: Split,
    embeddings: Tensor,
    features: FloatArray,
    seed: int,
) -> tuple[list[Ranker], tuple[ScorerRanker, BlendRanker]]:
    """Baselines, and what Newshelf trains: the scorer alone and the whole ranking."""
    baselines = [*default_baselines(split, catalog, features, seed), Ease(split, _SMALL_RIDGE)]
    ranking = _trained(context, split, embeddings, seed)
    return baselines, (ScorerRanker(ranking, embeddings), BlendRanker(ranking, embeddings))


def by_fusion(context: Context, catalog: Catalog, split: Split, seed: int) -> list[Ranker]:
    """The whole ranking with each kind of fusion, named after it."""
    found: list[Ranker] = []
    for kind in get_args(FusionKind):
        fusion = context.settings.fusion
        other = context.settings.model_copy(
            update={"fusion": fusion.model_copy(update={"kind": kind})}
        )
        embeddings, _ = embedded(replace(context, settings=other), catalog, seed)
        found.append(BlendRanker(_trained(context, split, embeddings, seed), embeddings, kind))
    return found


def _trained(context: Context, split: Split, embeddings: Tensor, seed: int) -> Ranking:
    return train_ranking(
        embeddings,
        split.train,
        split.train_timestamps,
        context.settings.scorer,
        Run(seed=seed, console=context.console, quiet=True),
    )


def rows_of(
    measures: Sequence[Measure],
    splits: Mapping[str, Sequence[Split]],
    fitted: Sequence[tuple[Sequence[Ranker], Sequence[Ranker]]],
    k: int,
) -> list[Row]:
    """A row per measure and ranker.

    Args:
        measures: what to report.
        splits: by name, one split per seed.
        fitted: the rankers of each seed, in one order.
        k: the cut-off of the measures.
    """
    found: dict[tuple[str, str], list[float]] = {}
    baseline: dict[str, bool] = {}
    for number, (simple, own) in enumerate(fitted):
        for ranker in (*simple, *own):
            baseline[ranker.name] = ranker in simple
            metrics = {
                name: evaluate(ranker, parts[number], (k,)) for name, parts in splits.items()
            }
            for measure in measures:
                value = measure.of(metrics[measure.split])
                found.setdefault((measure.name, ranker.name), []).append(value)
    return [
        Row(measure, method, values, baseline=baseline[method])
        for (measure, method), values in sorted(
            found.items(), key=lambda entry: [m.name for m in measures].index(entry[0][0])
        )
    ]
