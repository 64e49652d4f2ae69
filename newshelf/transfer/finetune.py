"""Fine-tuning on the source category, then a new head for the target's few labels.

Stage 1 trains fusion, attribute tower and the heads ``source_type``, ``color`` and
``material`` on the source category; the towers stay frozen, so their cached features are
all that is needed. The loss of a batch is::

    Σ_heads CE(head, label)  +  w · (1 - cos(embedding, start))

``start`` is the product's embedding before fine-tuning, from all its modalities. Classes
alone would pull everything onto a few directions, and what no label names (style, cut,
motif) would be gone; the second term keeps it, needs no labels, and is taken over the
whole catalogue. With modalities dropped it also teaches to stand in for what is absent.
It is L2-SP (Li et al., 2018) on the outputs instead of the weights.

A head must not read its own answer: the columns that state it are hidden from half of
the rows, and only those count for its loss. Whole modalities are dropped at random, so
that an absent picture or text costs little at serving time (Neverova et al., ModDrop,
2015).

Stage 2 freezes all that and trains ``target_type`` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.config import FinetuneSettings
from newshelf.errors import TrainingError
from newshelf.nn.encoder import Encoder, Features
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, HeadName
from newshelf.transfer.features import FeatureTable
from newshelf.transfer.labels import UNLABELLED, HeadLabels, few_shots

__all__ = ["FinetuneResult", "embed", "train_source", "train_target_head"]

_DROP_MODALITY = 0.2
_HIDE_STATED = 0.5
_HELD_OUT = 0.1
_PRESERVE_WEIGHT = 20.0
_HEAD_RATE = 20.0
"""How much faster the heads learn: unit vectors ask for large weights."""
_STATED_BY: dict[HeadName, tuple[str, ...]] = {
    "source_type": ("top_type", "product_type"),
    "color": ("color", "second_color"),
    "material": ("material", "second_material"),
}


@dataclass(frozen=True)
class FinetuneResult:
    """Mean loss of each epoch, and the accuracy on labelled products not learned from."""

    losses: list[float]
    accuracy: dict[str, float]
    tested: dict[str, int]


def train_source(
    encoder: Encoder,
    table: FeatureTable,
    labels: dict[HeadName, HeadLabels],
    settings: FinetuneSettings,
    console: Console,
) -> FinetuneResult:
    """Stage 1; changes ``encoder``'s fusion, attribute tower and heads in place."""
    heads = [head for head in _STATED_BY if head in labels]
    held = _held_out(len(table), seed=0)
    targets = {h: labels[h].target.masked_fill(held, UNLABELLED) for h in heads}
    start = embed(encoder, table)
    epochs = settings.epochs
    rate = settings.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [*encoder.fusion.parameters(), *encoder.attribute_tower.parameters()]}
    ]
    groups += [{"params": [*encoder.heads[head].parameters()]} for head in heads]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [rate] + [rate * _HEAD_RATE] * len(heads),
        epochs * -(-len(table) // settings.batch_size),
    )

    def step(rows: Tensor) -> Tensor:
        features, attributes = table.rows(rows)
        attributes, hidden = _hide_columns(attributes, heads)
        embedding = encoder.fuse(_drop_modalities(features), attributes)
        loss = _PRESERVE_WEIGHT * (1 - F.cosine_similarity(embedding, start[rows])).mean()
        for head in heads:
            target = targets[head][rows].masked_fill(~hidden[head], UNLABELLED)
            if (target != UNLABELLED).any():
                logits = encoder.heads[head](embedding)
                loss = loss + F.cross_entropy(logits, target, ignore_index=UNLABELLED)
        return loss

    encoder.fusion.train()
    losses = []
    for _ in track(range(epochs), "fine-tuning on the source category", console=console):
        order = torch.randperm(len(table)).split(settings.batch_size)
        losses.append(_epoch(order, step, optimizer, schedule))
    encoder.fusion.eval()
    accuracy: dict[str, float] = {}
    tested: dict[str, int] = {}
    for head in heads:
        rows = torch.nonzero(held & (labels[head].target != UNLABELLED)).flatten()
        if len(rows):
            accuracy[head] = _accuracy(encoder, table, head, labels[head].target, rows)
            tested[head] = len(rows)
    return FinetuneResult(losses, accuracy, tested)


def train_target_head(
    encoder: Encoder,
    table: FeatureTable,
    labels: HeadLabels,
    settings: FinetuneSettings,
    seed: int,
    console: Console,
) -> FinetuneResult:
    """Stage 2: the frozen embedding of a few labelled products, a new linear head."""
    generator = np.random.default_rng(seed)
    train, test = few_shots(labels.target, settings.target_shots, generator)
    embeddings = embed(encoder, table, hidden=_STATED_BY["source_type"])
    head = cast(nn.Linear, encoder.heads["target_type"])
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0.01)
    losses = []
    for _ in track(range(settings.target_epochs), "head of the target category", console=console):
        optimizer.zero_grad()
        loss = F.cross_entropy(head(embeddings[train]), labels.target[train])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    accuracy = _accuracy(encoder, table, "target_type", labels.target, test)
    return FinetuneResult(losses, {"target_type": accuracy}, {"target_type": len(test)})


@torch.no_grad()
def embed(encoder: Encoder, table: FeatureTable, hidden: tuple[str, ...] = ()) -> Tensor:
    """``(N, 512)`` float32: every product's embedding, some attribute columns hidden."""
    encoder.eval()
    chunks = []
    for rows in torch.arange(len(table)).split(1024):
        features, attributes = table.rows(rows)
        attributes = attributes.clone()
        attributes[:, _columns(hidden)] = 0
        chunks.append(encoder.fuse(features, attributes))
    return torch.cat(chunks)


def _epoch(
    batches: tuple[Tensor, ...],
    step: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    total = 0.0
    for rows in batches:
        optimizer.zero_grad()
        loss = step(rows)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {loss.item()}: lower the learning rate")
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(rows)
    return total / sum(len(rows) for rows in batches)


def _held_out(rows: int, seed: int) -> Tensor:
    """A tenth of the rows, ``(N,)`` bool, whose labels are only tested."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, generator=generator) < _HELD_OUT


def _hide_columns(
    attributes: Tensor, heads: list[HeadName]
) -> tuple[Tensor, dict[HeadName, Tensor]]:
    """Hide each head's columns from half of the rows; say from which, ``(B,)`` bool."""
    shown = attributes.clone()
    hidden = {}
    for head in heads:
        rows = torch.rand(len(attributes)) < _HIDE_STATED
        hidden[head] = rows
        shown[:, _columns(_STATED_BY[head])] *= ~rows.unsqueeze(1)
    # What no head states (brand, size, price) is hidden now and then, not to be relied on.
    others = torch.rand(len(attributes), 1) < _DROP_MODALITY
    stated = {column for head in heads for column in _STATED_BY[head]}
    rest = tuple(column for column in ATTRIBUTE_COLUMNS if column not in stated)
    shown[:, _columns(rest)] *= ~others
    return shown, hidden


def _columns(names: tuple[str, ...]) -> list[int]:
    return [ATTRIBUTE_COLUMNS.index(name) for name in names]


def _drop_modalities(features: Features) -> Features:
    """Hide the picture or the text of some rows, never both of them."""
    image, image_present, text, text_present = features
    draw = torch.rand(len(image_present))
    drop_image = (draw < _DROP_MODALITY) & text_present
    drop_text = (draw > 1 - _DROP_MODALITY) & image_present
    return image, image_present & ~drop_image, text, text_present & ~drop_text


@torch.no_grad()
def _accuracy(
    encoder: Encoder, table: FeatureTable, head: HeadName, target: Tensor, rows: Tensor
) -> float:
    stated = _STATED_BY["source_type" if head == "target_type" else head]
    predicted = encoder.heads[head](embed(encoder, table, hidden=stated)[rows]).argmax(dim=1)
    return float((predicted == target[rows]).float().mean())
