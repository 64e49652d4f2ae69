"""Alignment of pictures and texts: sentences that find products by nothing but their pictures."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from benchmarks.results import RowBuilder, TaskResult
from benchmarks.transfer.command import TransferContext
from benchmarks.transfer.finetuned import finetuned, table_rows
from newshelf.catalog.catalog import Catalog
from newshelf.config import ImageTowerSettings
from newshelf.nn.spec import HeadName
from newshelf.training.backbone import Backbone
from newshelf.training.features import FeatureTable
from newshelf.training.finetune import embed
from newshelf.training.labels import HeadLabels, choose_categories, head_labels

_WEIGHTS = (0.0, 0.3, 1.0, 3.0)
_PRODUCTS = 3_000
_TESTED = 0.2
_K = 10
_SIZE = 128
"""Pixels; the pictures have 60 × 80."""
_NOISE = 0.005
"""Accuracy that a choice may cost."""
_FOUND = "text → picture, Recall@10"

_PROTOCOL = f"""{_PRODUCTS:,} products of fashion with different titles, pictures at {_SIZE} pixels.
{_TESTED:.0%} of them, drawn by the seed, are new: neither their labels nor their pictures and
titles are learned from. The index holds a new product's picture alone, without title and
attributes; a query is a new product's title, and its product has to be among the first ten of all
new ones. Accuracies are those of a tenth of the other products, of which the labels are held out.
The weight is chosen on a fifth of the first seed's other products: the largest recall among the
weights that cost at most half a point of accuracy."""


def run(context: TransferContext) -> TaskResult:
    """Compare fine-tuning without and with the alignment of pictures and texts."""
    catalog = _one_per_title(context.catalog("fashion"))
    image = ImageTowerSettings(size=_SIZE)
    context = replace(context, settings=context.settings.model_copy(update={"image": image}))
    labels = head_labels(catalog, choose_categories(catalog, context.settings.finetune.source))
    backbone = context.backbone(catalog, labels)
    measured = partial(_measured, context, backbone, labels)
    everything = torch.arange(len(backbone.table))
    _, others = _drawn(everything, context.seeds[0])
    tried = {weight: measured(*_drawn(others, 0)[::-1], weight, 0) for weight in _WEIGHTS}
    chosen = _chosen(tried)
    rows = RowBuilder()
    for seed in context.seeds:
        new, old = _drawn(everything, seed)
        for weight in (0.0, chosen):
            method = f"align = {weight:g}"
            rows.add(method, measured(old, new, weight, seed), baseline=weight == 0)
    return TaskResult(
        "alignment",
        "Alignment: sentences that find pictures",
        _PROTOCOL,
        rows.rows(),
        notes=(
            "Tried on the first seed's other products, recall and mean accuracy: "
            + "; ".join(
                f"{weight:g}: {found[_FOUND]:.1%}, {_accuracy(found):.1%}"
                for weight, found in tried.items()
            )
            + ".",
        ),
    )


def _measured(
    context: TransferContext,
    backbone: Backbone,
    labels: Mapping[HeadName, HeadLabels],
    old: Tensor,
    new: Tensor,
    weight: float,
    seed: int,
) -> dict[str, float]:
    """Fine-tune on the rows ``old``, and search among the rows ``new``."""
    settings = context.settings.finetune.model_copy(update={"align": weight})
    dropout = context.settings.fusion.modality_dropout
    spec = backbone.encoder.spec
    encoder, result = finetuned(context, backbone, spec, labels, old, settings, dropout, seed)
    table = table_rows(backbone.table, new)
    texts = embed(encoder, _only(table, text=True))
    found = {_FOUND: _recall(texts, embed(encoder, _only(table, picture=True)))}
    return found | {f"{head}, accuracy": own for head, own in result.accuracy.items()}


def _one_per_title(catalog: Catalog) -> Catalog:
    items = catalog.items
    first = items["title"].notna() & ~items["title"].str.lower().duplicated()
    rows = [row for row in np.flatnonzero(first).tolist() if catalog.image_path(row) is not None]
    # Digests draw the same products everywhere.
    rows.sort(key=lambda row: _digest(catalog.image_path(row)))
    return replace(catalog, items=items.iloc[sorted(rows[:_PRODUCTS])].reset_index(drop=True))


def _digest(path: Path | None) -> str:
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _drawn(rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return a random share of the rows, and the others."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(len(rows), generator=generator) < _TESTED
    return rows[drawn], rows[~drawn]


def _chosen(tried: Mapping[float, Mapping[str, float]]) -> float:
    least = _accuracy(tried[0.0]) - _NOISE
    good = [weight for weight in tried if _accuracy(tried[weight]) >= least]
    return max(good, key=lambda weight: tried[weight][_FOUND])


def _accuracy(measured: Mapping[str, float]) -> float:
    return fmean(value for name, value in measured.items() if name.endswith("accuracy"))


def _only(table: FeatureTable, *, picture: bool = False, text: bool = False) -> FeatureTable:
    """Return the table without attributes, and without what is not named."""
    return replace(
        table,
        image_present=table.image_present & picture,
        text_present=table.text_present & text,
        attributes=torch.zeros_like(table.attributes),
    )


def _recall(queries: Tensor, products: Tensor) -> float:
    """Return the share of the queries whose own product is among the nearest ten."""
    own = (queries * products).sum(dim=1, keepdim=True)
    ahead = (queries @ products.T > own).sum(dim=1)
    return float((ahead < _K).float().mean())
