"""Whole rankings by kind of fusion, on the cases of ``home`` and ``bundles``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.transfer import bundles, home
from benchmarks.transfer.context import Context
from benchmarks.transfer.merged import merged
from benchmarks.transfer.ranking import Measure, by_fusion, rows_of
from benchmarks.transfer.result import Row, TaskResult
from newshelf.catalog import Catalog
from newshelf.evaluation.types import Ranker, Split

__all__ = ["run"]

_K = 10


def run(context: Context) -> TaskResult:
    """Train newshelf with each kind on both data sets."""
    rooms, shoppers = merged(context, "home"), merged(context, "bundles")
    home_splits = home.splits_of(rooms, context.seeds)
    hidden = {"jewellery": bundles.splits_of(shoppers, context.seeds)}
    rows = [
        *_rows(context, rooms.catalog, home.MEASURES, home_splits, home_splits["all"]),
        *_rows(context, shoppers.catalog, [bundles.MEASURE], hidden, hidden["jewellery"]),
    ]
    return TaskResult(
        task="fusion-ranking",
        title="Fusion: whole rankings by kind",
        protocol=(
            "newshelf with each kind of fusion, scorer and signals included, on the cases of "
            f"[home](#home) and [bundles](#bundles). {context.settings.fusion.kind} is the default."
        ),
        rows=rows,
        percent=False,
    )


def _rows(
    context: Context,
    catalog: Catalog,
    measures: Sequence[Measure],
    splits: Mapping[str, Sequence[Split]],
    learned: Sequence[Split],
) -> list[Row]:
    named = [replace(one, name=f"{catalog.name}: {one.name}") for one in measures]
    fitted: list[tuple[tuple[()], Sequence[Ranker]]] = []
    for seed, split in zip(context.seeds, learned, strict=True):
        context.console.print(f"{catalog.name} by fusion, seed {seed}")
        fitted.append(((), by_fusion(context, catalog, split, seed)))
    return rows_of(named, splits, fitted, _K)
