"""Fine-tuning of the embedding and its heads on the source category.

The fusion starts from the frozen towers' principal components (``warm_start``).

Fusion, attribute tower and the heads ``source_type``, ``color`` and ``material`` learn from cached
features of the frozen towers. The loss of a batch is::

    Σ_heads CE(head, label)  +  w · (1 - cos(embedding, start))

``start`` is the product's embedding before fine-tuning, from all its modalities. Class labels
alone would collapse the embedding onto a few directions and erase what they do not name (style,
cut, motif). The second term prevents this: L2-SP (Li et al., 2018) on outputs instead of weights,
taken over the whole catalogue, since it needs no labels. With dropped modalities it also teaches
the encoder to compensate for absent ones.

A head must not read its own answer: the columns that state it are masked in half of the rows, and
only those rows count for its loss. Whole modalities are dropped at random, so that an absent
picture or text costs little in serving (Neverova et al., ModDrop, 2015).

The picture and the text of a product are aligned, so that a sentence finds a product that has no
title. With ``p`` and ``t`` the embeddings of a batch's products from nothing but their picture, and
from nothing but their text, a·(CE(p tᵀ / τ) + CE(t pᵀ / τ)) / 2 is added, where each product's own
pair is the answer and the others are the negatives (InfoNCE, van den Oord et al., 2018; both ways
as in CLIP, Radford et al., 2021).

Two terms are off by default: λ · ||w - w_start||² over the weights of fusion and attribute tower
(L2-SP itself), and class weights n_c^-β, scaled to a mean of 1 over the labelled rows.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.config import FinetuneSettings, Settings
from newshelf.nn.encoder import AttentionFusion, EarlyFusion, Encoder, Features, Fusion, LateFusion
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, HeadName
from newshelf.training.choose import AUTO, Candidate, Choice, Fold, by_recall, choose
from newshelf.training.features import FeatureTable
from newshelf.training.few_shot import LinearHead, fit_probe, predict_class, set_head, whitened_head
from newshelf.training.labels import UNLABELLED, HeadLabels, class_weights, few_shots
from newshelf.training.loop import Objective, fit
from newshelf.training.run import Run

_MASK_STATED = 0.5
_MASK_OTHERS = 0.2
_MODALITY_DROPOUT = 0.2
_HELD_OUT = 0.1
_FEW_SHOT = ("probe", "whitened")
_PRESERVE_WEIGHT = 20.0
_HEAD_RATE = 20.0
"""Learning rate of the heads relative to the rest: unit vectors need large weights."""
_ALIGN_TEMPERATURE = 0.07
_ATTRIBUTES_LENGTH = 0.3
"""Initial length of the attributes' token relative to a tower's."""

STATED_BY: dict[HeadName, tuple[str, ...]] = {
    "source_type": ("top_type", "product_type"),
    "target_type": ("top_type", "product_type"),
    "color": ("color", "second_color"),
    "material": ("material", "second_material"),
}
"""The columns that state each head's answer."""


def mask_columns(
    attributes: Tensor, heads: list[HeadName]
) -> tuple[Tensor, dict[HeadName, Tensor]]:
    """Mask each head's columns in half of the rows; return those rows, ``(B,)`` bool per head.

    Only these rows may count for that head's loss.
    """
    masked = attributes.clone()
    rows_of = {}
    for head in heads:
        rows = torch.rand(len(attributes)) < _MASK_STATED
        rows_of[head] = rows
        masked[:, columns(STATED_BY[head])] *= ~rows.unsqueeze(1)
    # Brand, size and price are masked in some rows, so that the encoder does not rely on them.
    others = torch.rand(len(attributes), 1) < _MASK_OTHERS
    stated = {column for head in heads for column in STATED_BY[head]}
    rest = tuple(column for column in ATTRIBUTE_COLUMNS if column not in stated)
    masked[:, columns(rest)] *= ~others
    return masked, rows_of


def columns(names: tuple[str, ...]) -> list[int]:
    """Return the indices of the named columns in an attribute row."""
    return [ATTRIBUTE_COLUMNS.index(name) for name in names]


def drop_modalities(features: Features, rate: float) -> Features:
    """Mask the picture in a share ``rate`` of the rows, and the text in another; never both.

    ModDrop (Neverova et al., 2015), by row.
    """
    image, image_present, text, text_present = features
    draw = torch.rand(len(image_present))
    drop_image = (draw < rate) & text_present
    drop_text = (draw > 1 - rate) & image_present
    return image, image_present & ~drop_image, text, text_present & ~drop_text


def alignment_loss(
    first: Tensor, second: Tensor, temperature: float = _ALIGN_TEMPERATURE
) -> Tensor:
    """Return the symmetric InfoNCE loss between two views ``(B, D)`` of unit length; a scalar."""
    logits = first @ second.T / temperature
    own = torch.arange(len(first))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@dataclass(frozen=True)
class FinetuneResult:
    """Mean loss of each epoch, and accuracy by head on held-out labelled products."""

    losses: list[float]
    accuracy: dict[HeadName, float]
    tested: dict[HeadName, int]


def train_source(
    encoder: Encoder,
    table: FeatureTable,
    labels: dict[HeadName, HeadLabels],
    settings: FinetuneSettings,
    run: Run,
    *,
    modality_dropout: float = _MODALITY_DROPOUT,
) -> FinetuneResult:
    """Change ``encoder``'s fusion, attribute tower and heads in place.

    Raises:
        TrainingError: the loss is not finite.
    """
    heads: list[HeadName] = [h for h in STATED_BY if h in labels and h != "target_type"]
    held = held_out(len(table))
    # Disjoint from the test rows, so that early stopping does not bias the reported accuracy.
    validated = _tenth(len(table), seed=1) & ~held if settings.patience else torch.zeros_like(held)
    targets = {h: labels[h].target.masked_fill(held | validated, UNLABELLED) for h in heads}
    objective = _SourceObjective(encoder, table, targets, settings, modality_dropout)
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
        rows = torch.nonzero(validated).flatten()
        truth = {head: labels[head].target for head in heads}
        return -float(objective.validation_losses(rows, truth)["loss"])

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
        validate=validation if validated.any() else None,
        patience=settings.patience or None,
    )
    accuracy: dict[HeadName, float] = {}
    tested: dict[HeadName, int] = {}
    for head in heads:
        rows = torch.nonzero(held & (labels[head].target != UNLABELLED)).flatten()
        if len(rows):
            accuracy[head] = head_accuracy(encoder, table, head, labels[head].target, rows)
            tested[head] = len(rows)
    return FinetuneResult(history.loss, accuracy, tested)


def train_target_head(
    encoder: Encoder,
    table: FeatureTable,
    labels: dict[HeadName, HeadLabels],
    settings: Settings,
    run: Run,
) -> tuple[FinetuneResult, list[Choice]]:
    """Fit the target's head in place to the frozen embedding of a few labelled products.

    Raises:
        TrainingError: the source has too few products for the method of the settings.
    """
    target = labels["target_type"].target
    nothing = torch.full_like(target, UNLABELLED)
    source = labels["source_type"].target if "source_type" in labels else nothing
    generator = np.random.default_rng(run.seed)
    train, test = few_shots(target, settings.finetune.target_shots, generator)
    embeddings = embed(encoder, table, masked=STATED_BY["source_type"])

    def fit_head(method: str, rows: Tensor) -> LinearHead:
        if method == "probe":
            return fit_probe(embeddings[rows], target[rows])
        return whitened_head(embeddings, target, rows, source)

    def predict(method: str, fold: Fold) -> Tensor:
        return predict_class(fit_head(method, fold.learn), embeddings[fold.held])

    method, choices = str(settings.training.few_shot), []
    if method == AUTO:
        known = nothing.index_copy(0, train, target[train])
        measure = by_recall(known, embeddings, run.seed, predict)
        candidates, budget_s = [Candidate(one) for one in _FEW_SHOT], settings.training.budget_s
        choices = [choose("few_shot", candidates, measure, _FEW_SHOT[0], budget_s, run)]
        method = choices[0].name
    set_head(cast(nn.Linear, encoder.heads["target_type"]), fit_head(method, train))
    accuracy = head_accuracy(encoder, table, "target_type", target, test)
    return FinetuneResult([], {"target_type": accuracy}, {"target_type": len(test)}), choices


class _SourceObjective(Objective):
    """Losses of some rows of the table."""

    def __init__(
        self,
        encoder: Encoder,
        table: FeatureTable,
        targets: dict[HeadName, Tensor],
        settings: FinetuneSettings,
        modality_dropout: float,
    ) -> None:
        super().__init__()
        # Without the frozen towers: saved progress has trained weights only.
        self.backbone = nn.ModuleList([encoder.fusion, encoder.attribute_tower])
        self.heads = nn.ModuleDict({head: encoder.heads[head] for head in targets})
        self._fuse = encoder.fuse
        self._table = table
        self._targets = targets
        self._start = embed(encoder, table)
        self._start_weights = [p.detach().clone() for p in self.backbone.parameters()]
        self._l2_sp = settings.l2_sp
        self._align = settings.align
        self._modality_dropout = modality_dropout
        self._weights = {
            head: class_weights(target, len(encoder.spec.labels[head]), settings.class_balance)
            for head, target in targets.items()
        }

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``batch (B,)`` int64 row numbers."""
        features, attributes = self._table.rows(batch)
        attributes, masked = mask_columns(attributes, [*self._targets])
        targets = {
            head: target[batch].masked_fill(~masked[head], UNLABELLED)
            for head, target in self._targets.items()
        }
        dropped = drop_modalities(features, self._modality_dropout)
        losses = self._losses(self._fuse(dropped, attributes), batch, targets)
        if self._l2_sp:
            pairs = zip(self.backbone.parameters(), self._start_weights, strict=True)
            distance = torch.stack([(now - start).square().sum() for now, start in pairs]).sum()
            losses["loss"] = losses["loss"] + self._l2_sp * distance
            losses["distance"] = distance.detach()
        complete = features[1] & features[3]
        if self._align and complete.sum() > 1:
            apart = alignment_loss(*self._views(self._table.rows(batch[complete])))
            losses["loss"] = losses["loss"] + self._align * apart
            losses["apart"] = apart.detach()
        return losses

    def _views(self, inputs: tuple[Features, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the embeddings ``(B, 512)`` of the pictures alone and of the texts alone."""
        (image, image_present, text, text_present), attributes = inputs
        nothing, unknown = torch.zeros_like(image_present), torch.zeros_like(attributes)
        return (
            self._fuse((image, image_present, text, nothing), unknown),
            self._fuse((image, nothing, text, text_present), unknown),
        )

    def validation_losses(self, rows: Tensor, truth: dict[HeadName, Tensor]) -> dict[str, Tensor]:
        """Return losses without randomness: all stated columns masked, all modalities present."""
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


@torch.no_grad()
def embed(encoder: Encoder, table: FeatureTable, masked: tuple[str, ...] = ()) -> Tensor:
    """Return the embeddings ``(N, 512)`` float32, with the named attribute columns masked."""
    encoder.eval()
    chunks = []
    for rows in torch.arange(len(table)).split(1024):
        features, attributes = table.rows(rows)
        attributes = attributes.clone()
        attributes[:, columns(masked)] = 0
        chunks.append(encoder.fuse(features, attributes))
    return torch.cat(chunks)


def held_out(rows: int) -> Tensor:
    """Return ``(rows,)`` bool: products that ``train_source`` tests its heads on."""
    return _tenth(rows, seed=0)


def _tenth(rows: int, seed: int) -> Tensor:
    """Return a random tenth of the rows, ``(rows,)`` bool."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, generator=generator) < _HELD_OUT


@torch.no_grad()
def head_accuracy(
    encoder: Encoder, table: FeatureTable, head: HeadName, target: Tensor, rows: Tensor
) -> float:
    """Return the accuracy on ``rows``, without the columns that state the answer."""
    embeddings = embed(encoder, table, masked=STATED_BY[head])
    predicted = head_logits(encoder, table, head, embeddings)[rows].argmax(dim=1)
    return float((predicted == target[rows]).float().mean())


@torch.no_grad()
def head_logits(
    encoder: Encoder, table: FeatureTable, head: HeadName, embeddings: Tensor
) -> Tensor:
    """Return the logits ``(N, classes)`` of a head for the products' ``embeddings (N, 512)``."""
    return encoder.logits(head, embeddings, table.inner, table.image_present)


@torch.no_grad()
def warm_start(encoder: Encoder, table: FeatureTable) -> None:
    """Set the fusion's weights from the features of the catalogue, in place.

    A random fusion would have to relearn what the frozen towers separate. This one starts as
    their concatenated principal components: each tower's input layer projects onto the leading
    components of its features, in coordinates that no other tower uses, scaled to a mean squared
    length of 1. Attention, feed-forward and gates start at zero and the output layer as the
    identity: a residual branch that starts as a no-op (Zhang et al., Fixup, 2019) on a
    data-dependent first layer (Krähenbühl et al., 2016).
    """
    fusion = encoder.fusion
    width = encoder.spec.fusion.width
    # In the order of the fusion's inputs: attributes, then the present towers.
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
        # If all pictures are damaged, there are no components.
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
    """Initialise ``fusion`` as the normalised sum of its input layers."""
    match fusion:
        case AttentionFusion():
            _zero(fusion.mix, fusion.feed_forward[-1])
            _identity(fusion.output)
        case LateFusion():
            _zero(*(cast(nn.Sequential, block)[-1] for block in fusion.feed_forward))
            _zero(*(cast(nn.Sequential, gate)[-1] for gate in fusion.gates))
            _identity(fusion.output)
        case EarlyFusion():
            _zero(fusion.feed_forward[-1], fusion.direct)
            for at in range(len(fusion.inputs)):
                nn.init.eye_(fusion.direct.weight[:, at * width : (at + 1) * width])


def _zero(*layers: nn.Module) -> None:
    for layer in layers:
        nn.init.zeros_(cast(nn.Linear, layer).weight)
        nn.init.zeros_(cast(nn.Linear, layer).bias)


def _identity(layer: nn.Linear) -> None:
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)


def _shares(features: list[int], width: int) -> list[int]:
    """Return the number of coordinates per tower, proportional to the roots of their widths."""
    roots = [size**0.5 for size in features]
    return [
        min(size, int(width * root / sum(roots)))
        for size, root in zip(features, roots, strict=True)
    ]


def _principal(block: nn.Sequential, rows: Tensor, start: int, share: int) -> None:
    """Make ``block`` (norm, linear) project onto ``share`` principal components at ``start``."""
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
