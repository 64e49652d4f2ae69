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

Further terms are off by default: λ · ||w - w_start||² over the fusion's and the attribute
tower's weights (L2-SP itself), and class weights n_c^-β, scaled to a mean of 1 over the
labelled rows, which let rare classes count more.

Stage 2 freezes all that and trains ``target_type`` alone.

What fine-tuning hides from the encoder, so that it neither copies nor relies on it.

Start the fusion from what the towers already know.

A fusion that starts at random has to relearn, from a few thousand products, what the
frozen towers tell apart. Started this way it begins as their principal components side by
side, and fine-tuning moves it from there:

- each tower's input layer projects onto the leading principal components of its features,
  in coordinates that no other tower uses, scaled to a mean squared length of 1;
- what adds to that (attention, feed-forward, gates) begins at zero, and the way to the
  embedding as the identity.

The idea is that of a residual branch that starts as a no-op (Zhang et al., Fixup, 2019)
on a data-dependent first layer (Krähenbühl et al., 2016).
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.config import FinetuneSettings
from newshelf.nn.encoder import AttentionFusion, EarlyFusion, Encoder, Features, Fusion, LateFusion
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, HeadName
from newshelf.training.features import FeatureTable
from newshelf.training.labels import UNLABELLED, HeadLabels, few_shots
from newshelf.training.loop import Objective, fit
from newshelf.training.run import Run

_HIDE_STATED = 0.5
_HIDE_OTHERS = 0.2

STATED_BY: dict[HeadName, tuple[str, ...]] = {
    "source_type": ("top_type", "product_type"),
    "color": ("color", "second_color"),
    "material": ("material", "second_material"),
}
"""The columns that state each head's answer."""


def hide_columns(
    attributes: Tensor, heads: list[HeadName]
) -> tuple[Tensor, dict[HeadName, Tensor]]:
    """Hide each head's columns from half of the rows; say from which, ``(B,)`` bool.

    Only those rows may count for that head's loss: the others show the answer.
    """
    shown = attributes.clone()
    hidden = {}
    for head in heads:
        rows = torch.rand(len(attributes)) < _HIDE_STATED
        hidden[head] = rows
        shown[:, columns(STATED_BY[head])] *= ~rows.unsqueeze(1)
    # What no head states (brand, size, price) is hidden now and then, not to be relied on.
    others = torch.rand(len(attributes), 1) < _HIDE_OTHERS
    stated = {column for head in heads for column in STATED_BY[head]}
    rest = tuple(column for column in ATTRIBUTE_COLUMNS if column not in stated)
    shown[:, columns(rest)] *= ~others
    return shown, hidden


def columns(names: tuple[str, ...]) -> list[int]:
    """Return the indices of the named columns in an attribute row."""
    return [ATTRIBUTE_COLUMNS.index(name) for name in names]


def drop_modalities(features: Features, rate: float) -> Features:
    """Hide the picture of a share ``rate`` of the rows, and the text of another; never both.

    ModDrop (Neverova et al., 2015), by row.
    """
    image, image_present, text, text_present = features
    draw = torch.rand(len(image_present))
    drop_image = (draw < rate) & text_present
    drop_text = (draw > 1 - rate) & image_present
    return image, image_present & ~drop_image, text, text_present & ~drop_text


_MODALITY_DROPOUT = 0.2
_HELD_OUT = 0.1
_PRESERVE_WEIGHT = 20.0
_HEAD_RATE = 20.0
"""How much faster the heads learn: unit vectors ask for large weights."""


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
    run: Run,
    *,
    modality_dropout: float = _MODALITY_DROPOUT,
) -> FinetuneResult:
    """Stage 1; changes ``encoder``'s fusion, attribute tower and heads in place.

    Raises:
        TrainingError: the loss is not finite.
    """
    heads = [head for head in STATED_BY if head in labels]
    held = held_out(len(table))
    # Of its own, so that stopping early does not flatter what is reported.
    watched = _drawn(len(table), seed=1) & ~held if settings.patience else torch.zeros_like(held)
    targets = {h: labels[h].target.masked_fill(held | watched, UNLABELLED) for h in heads}
    objective = _Source(encoder, table, targets, settings, modality_dropout)
    rate = settings.learning_rate
    groups: list[dict[str, Any]] = [{"params": [*objective.backbone.parameters()]}]
    groups += [{"params": [*encoder.heads[head].parameters()]} for head in heads]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [rate] + [rate * _HEAD_RATE] * len(heads),
        settings.epochs * -(-len(table) // settings.batch_size),
    )

    def validation() -> float:
        rows = torch.nonzero(watched).flatten()
        truth = {head: labels[head].target for head in heads}
        return -float(objective.losses_of(rows, truth)["loss"])

    history = fit(
        "source",
        objective,
        lambda _, generator: torch.randperm(len(table), generator=generator).split(
            settings.batch_size
        ),
        optimizer,
        run,
        epochs=settings.epochs,
        schedule=schedule,
        validate=validation if watched.any() else None,
        patience=settings.patience or None,
    )
    accuracy: dict[str, float] = {}
    tested: dict[str, int] = {}
    for head in heads:
        rows = torch.nonzero(held & (labels[head].target != UNLABELLED)).flatten()
        if len(rows):
            accuracy[head] = _accuracy(encoder, table, head, labels[head].target, rows)
            tested[head] = len(rows)
    return FinetuneResult(history.loss, accuracy, tested)


def train_target_head(
    encoder: Encoder,
    table: FeatureTable,
    labels: HeadLabels,
    settings: FinetuneSettings,
    run: Run,
) -> FinetuneResult:
    """Stage 2: the frozen embedding of a few labelled products, a new linear head.

    Raises:
        TrainingError: the loss is not finite.
    """
    generator = np.random.default_rng(run.seed)
    train, test = few_shots(labels.target, settings.target_shots, generator)
    embeddings = embed(encoder, table, hidden=STATED_BY["source_type"])
    head = cast(nn.Linear, encoder.heads["target_type"])
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    weight = _class_weights(labels.target[train], len(labels.classes), settings.class_balance)
    history = fit(
        "target",
        _Head(head, embeddings, labels.target, weight),
        lambda _epoch, _generator: [train],
        torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0.01),
        run,
        epochs=settings.target_epochs,
    )
    accuracy = _accuracy(encoder, table, "target_type", labels.target, test)
    return FinetuneResult(history.loss, {"target_type": accuracy}, {"target_type": len(test)})


class _Source(Objective):
    """Stage 1's losses of some rows of the table."""

    def __init__(
        self,
        encoder: Encoder,
        table: FeatureTable,
        targets: dict[HeadName, Tensor],
        settings: FinetuneSettings,
        modality_dropout: float,
    ) -> None:
        super().__init__()
        # The frozen towers stay outside: what is kept of a run is what is trained.
        self.backbone = nn.ModuleList([encoder.fusion, encoder.attribute_tower])
        self.heads = nn.ModuleDict({head: encoder.heads[head] for head in targets})
        self._fuse = encoder.fuse
        self._table = table
        self._targets = targets
        self._start = embed(encoder, table)
        self._start_weights = [p.detach().clone() for p in self.backbone.parameters()]
        self._l2_sp = settings.l2_sp
        self._modality_dropout = modality_dropout
        self._weights = {
            head: _class_weights(target, self._classes(head), settings.class_balance)
            for head, target in targets.items()
        }

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``batch (B,)`` int64 row numbers."""
        features, attributes = self._table.rows(batch)
        attributes, hidden = hide_columns(attributes, [*self._targets])
        targets = {
            head: target[batch].masked_fill(~hidden[head], UNLABELLED)
            for head, target in self._targets.items()
        }
        dropped = drop_modalities(features, self._modality_dropout)
        losses = self._losses(self._fuse(dropped, attributes), batch, targets)
        if self._l2_sp:
            moved = zip(self.backbone.parameters(), self._start_weights, strict=True)
            distance = torch.stack([(now - start).square().sum() for now, start in moved]).sum()
            losses["loss"] = losses["loss"] + self._l2_sp * distance
            losses["distance"] = distance.detach()
        return losses

    def losses_of(self, rows: Tensor, truth: dict[HeadName, Tensor]) -> dict[str, Tensor]:
        """Without chance: every stated column hidden, every modality shown."""
        features, attributes = self._table.rows(rows)
        attributes = attributes.clone()
        for head in truth:
            attributes[:, columns(STATED_BY[head])] = 0
        targets = {head: target[rows] for head, target in truth.items()}
        return self._losses(self._fuse(features, attributes), rows, targets)

    def _losses(
        self, embedding: Tensor, rows: Tensor, targets: dict[HeadName, Tensor]
    ) -> dict[str, Tensor]:
        away = (1 - F.cosine_similarity(embedding, self._start[rows])).mean()
        losses = {"loss": _PRESERVE_WEIGHT * away, "away": away.detach()}
        for head, target in targets.items():
            if (target != UNLABELLED).any():
                loss = F.cross_entropy(
                    self.heads[head](embedding),
                    target,
                    weight=self._weights[head],
                    ignore_index=UNLABELLED,
                )
                losses["loss"] = losses["loss"] + loss
                losses[head] = loss.detach()
        return losses

    def _classes(self, head: HeadName) -> int:
        return cast(nn.Linear, self.heads[head]).out_features


class _Head(Objective):
    """Stage 2's loss: cross-entropy of a linear head on embeddings that do not change."""

    def __init__(self, head: nn.Linear, embeddings: Tensor, target: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.head = head
        self._embeddings = embeddings
        self._target = target
        self._weight = weight

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``batch (B,)`` int64 row numbers, all labelled."""
        logits = self.head(self._embeddings[batch])
        return {"loss": F.cross_entropy(logits, self._target[batch], weight=self._weight)}


@torch.no_grad()
def embed(encoder: Encoder, table: FeatureTable, hidden: tuple[str, ...] = ()) -> Tensor:
    """``(N, 512)`` float32: every product's embedding, some attribute columns hidden."""
    encoder.eval()
    chunks = []
    for rows in torch.arange(len(table)).split(1024):
        features, attributes = table.rows(rows)
        attributes = attributes.clone()
        attributes[:, columns(hidden)] = 0
        chunks.append(encoder.fuse(features, attributes))
    return torch.cat(chunks)


def held_out(rows: int) -> Tensor:
    """``(rows,)`` bool: products whose labels are only tested on in stage 1."""
    return _drawn(rows, seed=0)


def _drawn(rows: int, seed: int) -> Tensor:
    """A tenth of the rows, ``(N,)`` bool."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, generator=generator) < _HELD_OUT


def _class_weights(target: Tensor, classes: int, balance: float) -> Tensor:
    """``(classes,)``: n_c^-balance, of mean 1 over the labelled rows; 1 for an absent class."""
    counts = torch.bincount(target[target != UNLABELLED], minlength=classes).float()
    weights = torch.where(counts > 0, counts.clamp(min=1) ** -balance, 0.0)
    mean = (weights * counts).sum() / counts.sum().clamp(min=1)
    return torch.where(counts > 0, weights / mean.clamp(min=1e-12), 1.0)


@torch.no_grad()
def _accuracy(
    encoder: Encoder, table: FeatureTable, head: HeadName, target: Tensor, rows: Tensor
) -> float:
    stated = STATED_BY["source_type" if head == "target_type" else head]
    predicted = encoder.heads[head](embed(encoder, table, hidden=stated)[rows]).argmax(dim=1)
    return float((predicted == target[rows]).float().mean())


_ATTRIBUTES_LENGTH = 0.3
"""Length of the attributes' token at the start, relative to 1 for a tower's."""


@torch.no_grad()
def warm_start(encoder: Encoder, table: FeatureTable) -> None:
    """Set the fusion's weights from the features of the catalogue, in place."""
    fusion = encoder.fusion
    width = encoder.spec.fusion.width
    # The order of the fusion's inputs: attributes, then the towers that there are.
    towers = [
        (rows, present)
        for rows, present, spec in (
            (table.image, table.image_present, encoder.spec.image),
            (table.text, table.text_present, encoder.spec.text),
        )
        if spec is not None
    ]
    shares = _shares([rows.shape[1] for rows, _ in towers], width)
    start = 0
    for position, ((rows, present), share) in enumerate(zip(towers, shares, strict=True), 1):
        block = cast(nn.Sequential, fusion.inputs[position])
        # Pictures that are all damaged leave nothing to take components of.
        if present.any():
            _principal(block, rows[present], start, share)
        start += share
    attributes = cast(nn.Linear, cast(nn.Sequential, fusion.inputs[0])[1])
    nn.init.normal_(
        attributes.weight, std=_ATTRIBUTES_LENGTH / (width * attributes.in_features) ** 0.5
    )
    nn.init.zeros_(attributes.bias)
    _sum_of_inputs(fusion, width)


def _sum_of_inputs(fusion: Fusion, width: int) -> None:
    """Let ``fusion`` begin as the normalised sum of its input layers' results."""
    match fusion:
        case AttentionFusion():
            _silence(fusion.mix, fusion.feed_forward[-1])
            _identity(fusion.output)
        case LateFusion():
            _silence(*(cast(nn.Sequential, block)[-1] for block in fusion.feed_forward))
            _silence(*(cast(nn.Sequential, gate)[-1] for gate in fusion.gates))
            _identity(fusion.output)
        case EarlyFusion():
            _silence(fusion.feed_forward[-1], fusion.direct)
            for at in range(len(fusion.inputs)):
                nn.init.eye_(fusion.direct.weight[:, at * width : (at + 1) * width])


def _silence(*layers: nn.Module) -> None:
    for layer in layers:
        nn.init.zeros_(cast(nn.Linear, layer).weight)
        nn.init.zeros_(cast(nn.Linear, layer).bias)


def _identity(layer: nn.Linear) -> None:
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)


def _shares(features: list[int], width: int) -> list[int]:
    """Coordinates of each tower: in proportion to the square roots of their widths."""
    roots = [size**0.5 for size in features]
    return [
        min(size, int(width * root / sum(roots)))
        for size, root in zip(features, roots, strict=True)
    ]


def _principal(block: nn.Sequential, rows: Tensor, start: int, share: int) -> None:
    """Let ``block`` (norm, linear) put ``share`` principal components at ``start``."""
    norm, linear = cast(nn.LayerNorm, block[0]), cast(nn.Linear, block[1])
    normed = norm(rows)
    mean = normed.mean(dim=0)
    centred = normed - mean
    covariance = centred.T @ centred / max(1, len(rows))
    values, vectors = torch.linalg.eigh(covariance)
    components = vectors[:, -share:].T
    length = values[-share:].clamp(min=0).sum().sqrt().clamp(min=1e-6)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    linear.weight[start : start + share] = components / length
    linear.bias[start : start + share] = -(components @ mean) / length
