"""Kinds of fusion: the cost of an absent picture or text, and whole rankings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.results import Row, RowBuilder, TaskResult
from benchmarks.transfer import bundles, home
from benchmarks.transfer.command import TransferContext
from benchmarks.transfer.finetuned import finetuned
from benchmarks.transfer.ranking import Measure, by_fusion, merged, rows_of
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import basket_interactions
from newshelf.evaluation.types import Ranker, Split
from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import FusionKind, FusionSpec
from newshelf.training.backbone import Backbone
from newshelf.training.features import FeatureTable
from newshelf.training.finetune import embed
from newshelf.training.labels import choose_categories, head_labels

_KINDS: tuple[FusionKind, ...] = ("attention", "early", "late")
_DROPOUT = 0.2
_NEW = 0.2
"""Share of products that fine-tuning does not see."""
_K = 10
_BASELINE = "features side by side"

_PROTOCOL = """home. Fine-tuning sees 80 % of the products, drawn by the seed, with the settings'
defaults; the others are new. *Neighbours kept*: of a new product's ten nearest, how many stay
when it is encoded without its picture or text, everything else being complete. *Rooms*: one item
left out of each room, the others' mean embedding ranks the catalogue, Recall@10; complete, and
with half of the products, drawn by the seed, without picture or text. No room is learned from.
*Features side by side* is each tower's vector at unit length, zeros where absent."""


def run(context: TransferContext) -> TaskResult:
    """Compare three kinds, with and without modality dropout, with concatenated features."""
    catalog = context.catalog("home")
    backbone = context.backbone(catalog)
    rooms = _rooms(catalog)
    rows = RowBuilder()
    for seed in context.seeds:
        generator = torch.Generator().manual_seed(seed)
        new = torch.rand(len(backbone.table), generator=generator) < _NEW
        poor = torch.rand(len(backbone.table), generator=generator) < 0.5  # noqa: PLR2004
        encoders = {
            (kind, rate): _tuned(context, catalog, backbone, kind, rate, ~new, seed)
            for kind in _KINDS
            for rate in (0.0, _DROPOUT)
        }
        ways: dict[str, Callable[[FeatureTable], Tensor]] = {_BASELINE: _side_by_side}
        for (kind, rate), encoder in encoders.items():
            ways[f"{kind}, dropout {rate:g}"] = partial(embed, encoder)
        for method, embedding in ways.items():
            complete = F.normalize(embedding(backbone.table), dim=1)
            measured = {"rooms, complete: Recall@10": _recall(complete, rooms)}
            for part in ("picture", "text"):
                everywhere = _without(backbone.table, part, torch.ones_like(new))
                lacking = F.normalize(embedding(everywhere), dim=1)
                measured[f"neighbours kept without {part}"] = _kept(complete, lacking, new)
                mixed = torch.where(poor.unsqueeze(1), lacking, complete)
                measured[f"rooms, half without {part}: Recall@10"] = _recall(mixed, rooms)
            rows.add(method, measured, baseline=method == _BASELINE)
    return TaskResult(
        "fusion",
        "Fusion: what an absent picture or text costs",
        _PROTOCOL,
        rows.rows(sorted(measured)),
        notes=(
            "All kinds start from the towers' principal components side by side, so before "
            "fine-tuning they rank alike; what differs is what fine-tuning adds.",
        ),
    )


def _tuned(
    context: TransferContext,
    catalog: Catalog,
    backbone: Backbone,
    kind: FusionKind,
    rate: float,
    seen: Tensor,
    seed: int,
) -> Encoder:
    """Return an encoder with a fusion of ``kind``, fine-tuned on the ``seen`` products."""
    settings = context.settings.finetune
    labels = head_labels(catalog, choose_categories(catalog, settings.source))
    classes = {head: label.classes for head, label in labels.items()}
    spec = backbone.encoder.spec.model_copy(
        update={"fusion": FusionSpec(kind=kind), "labels": classes}
    )
    rows = torch.nonzero(seen).flatten()
    return finetuned(context, backbone, spec, labels, rows, settings, rate, seed)[0]


def _side_by_side(table: FeatureTable) -> Tensor:
    return torch.from_numpy(table.content())


def _without(table: FeatureTable, part: str, hidden: Tensor) -> FeatureTable:
    """Return ``table`` without the picture or text of the ``hidden (N,)`` rows."""
    if part == "picture":
        shown = table.image_present & ~hidden
        return replace(table, image=table.image * shown.unsqueeze(1), image_present=shown)
    shown = table.text_present & ~hidden
    return replace(table, text=table.text * shown.unsqueeze(1), text_present=shown)


def _kept(complete: Tensor, partial: Tensor, new: Tensor) -> float:
    """Return the mean share of each new product's nearest ten that its partial embedding keeps."""
    asked = torch.nonzero(new).flatten()
    nearest = []
    for vectors in (complete, partial):
        scores = vectors[asked] @ complete.T
        scores[torch.arange(len(asked)), asked] = -torch.inf
        nearest.append(scores.topk(_K, dim=1).indices)
    same = (nearest[0].unsqueeze(2) == nearest[1].unsqueeze(1)).any(dim=2)
    return float(same.float().mean())


def _rooms(catalog: Catalog) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    found = basket_interactions(catalog)
    return [] if found is None else [items for items in found.sequences if len(items) > 1]


def _recall(vectors: Tensor, rooms: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> float:
    """Return Recall@10 of the rooms' items, each left out once."""
    hits, asked = 0, 0
    for room in rooms:
        items = torch.from_numpy(room)
        total = vectors[items].sum(dim=0)
        scores = (total - vectors[items]) @ vectors.T
        own = scores.gather(1, items.unsqueeze(1)).flatten()
        scores[:, items] = -torch.inf
        hits += int(((scores > own.unsqueeze(1)).sum(dim=1) < _K).sum())
        asked += len(items)
    return hits / max(1, asked)


def run_ranking(context: TransferContext) -> TaskResult:
    """Train the whole ranking with each kind on both data sets."""
    rooms, shoppers = merged(context, "home"), merged(context, "bundles")
    home_splits = home.splits_of(rooms, context.seeds)
    hidden = {"jewellery": bundles.splits_of(shoppers, context.seeds)}
    rows = [
        *_ranking_rows(context, rooms.catalog, home.MEASURES, home_splits, home_splits["all"]),
        *_ranking_rows(context, shoppers.catalog, [bundles.MEASURE], hidden, hidden["jewellery"]),
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


def _ranking_rows(
    context: TransferContext,
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
