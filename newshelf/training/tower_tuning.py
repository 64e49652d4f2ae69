"""Tune the image tower on a few labelled pictures, starting from what a source taught it.

    source classifier → freeze → new head → thaw stage by stage, each slower than the next

after ULMFiT (Howard and Ruder, 2018). The new head starts as a linear probe of the frozen
features, so that the first steps do not undo what the tower knows (LP-FT, Kumar et al.,
ICLR 2022). The loss of a batch is::

    CE(head(tower(picture)), class)  +  λ · ||w - w_source||²

The second term is L2-SP (Li et al., 2018); λ = 0 leaves it out. Normalisation keeps the
source's statistics: those of a batch of a few products are noise.

The same function trains the source classifier: its source is then what the tower came with.

What may be chosen when the image tower is tuned.

What tuning minimises: the classes of the target, near to the weights of the source.

L2-SP: stay near to the weights one started from.

How fast, and from which epoch on, each stage learns (Howard and Ruder, ULMFiT, 2018).

Tuning of the image tower itself, before anything is learned on top of it.

Fine-tuning of the image tower itself, from a rich category to a poor one.

``newshelf.training.finetune`` learns on cached features of frozen towers. Here the tower
learns too: read the pictures, tune the tower on them, or read features from its inner
stages and leave it as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import Optimizer

from newshelf.catalog.catalog import Catalog
from newshelf.config import Settings
from newshelf.nn.encoder import Encoder, ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.training.labels import UNLABELLED, HeadLabels
from newshelf.training.loop import LossHistory, Objective, fit
from newshelf.training.picture_data import (
    PictureSet,
    class_weights,
    epoch_rows,
    hold_out,
    read_pictures,
    require_shots,
)
from newshelf.training.probe import fit_probe
from newshelf.training.run import Run
from newshelf.training.tower_stages import (
    Activations,
    PyramidPool,
    StageFeatures,
    StageSettings,
    TowerSettings,
    TowerStages,
    Trunk,
    normalise_pixels,
)


class SourceDistance(nn.Module):
    """``Σ ||w - w_source||²`` over the given parameters (Li et al., ICML 2018).

    Added to a loss as ``λ · distance``. Weight decay pulls to zero, where nothing is known;
    this pulls to what the source taught. ``w_source`` is a copy made here, kept in the
    state so that a resumed run pulls to the same place.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        # In a tuple: the parameters belong to the tower, and must not be listed twice.
        self._now = tuple(parameters)
        for at, parameter in enumerate(self._now):
            self.register_buffer(f"source_{at}", parameter.detach().clone())

    def forward(self) -> Tensor:
        """Scalar, of those that are being trained; 0 without any."""
        total = torch.zeros(())
        for at, parameter in enumerate(self._now):
            if parameter.requires_grad:
                total = total + (parameter - self.get_buffer(f"source_{at}")).square().sum()
        return total


_PREDICT_BATCH = 64


class TowerObjective(Objective):
    """``CE(head(tail(x)), class) + λ · ||w - w_source||²`` over a batch of positions.

    Args:
        activations: of n pictures.
        tail: the part of the tower that is trained.
        head: from its pooled features to classes.
        target: ``(n,)`` int64.
        weights: ``(classes,)`` float32, how much each class counts.
        settings: λ and label smoothing.
    """

    def __init__(
        self,
        activations: Activations,
        tail: nn.Sequential,
        head: nn.Linear,
        target: Tensor,
        weights: Tensor,
        settings: TowerSettings,
    ) -> None:
        super().__init__()
        self.tail = tail
        self.head = head
        self.distance = SourceDistance(tail.parameters())
        self._activations = activations
        self._target = target
        self._weights = weights
        self._settings = settings

    def train(self, mode: bool = True) -> "TowerObjective":
        """As usual, but normalisation keeps the source's statistics."""
        super().train(mode)
        for module in self.tail.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``batch (B,)`` int64 → ``loss``, ``classes`` and, with λ > 0, ``distance``."""
        logits = self.head(self.tail(self._activations.learned_from(batch)))
        smoothing = self._settings.label_smoothing
        classes = F.cross_entropy(
            logits.float(), self._target[batch], self._weights, label_smoothing=smoothing
        )
        if self._settings.l2_sp == 0:
            return {"loss": classes, "classes": classes.detach()}
        distance = self.distance()
        loss = classes + self._settings.l2_sp * distance
        return {"loss": loss, "classes": classes.detach(), "distance": distance.detach()}

    @torch.no_grad()
    def mean_recall(self, rows: Tensor) -> float:
        """Over the classes, the share of their ``rows`` that is recognised."""
        predicted = torch.cat(
            [
                self.head(self.tail(self._activations.tested_on(chunk))).argmax(dim=1)
                for chunk in rows.split(_PREDICT_BATCH)
            ]
        )
        right = (predicted == self._target[rows]).float()
        values = self._target[rows].unique()
        recalls = [right[self._target[rows] == value].mean() for value in values]
        return float(torch.stack(recalls).mean())


_CUT = 0.1
_RATIO = 32.0


def rate_groups(
    stages: Sequence[nn.Module], head: nn.Module, rate: float, decay: float, head_rate: float
) -> list[dict[str, Any]]:
    """Optimizer groups: stage i of n learns with ``rate / decay^(n - 1 - i)``."""
    last = len(stages) - 1
    groups: list[dict[str, Any]] = [
        {"params": [*stage.parameters()], "lr": rate / decay ** (last - at), "weight_decay": 0.0}
        for at, stage in enumerate(stages)
    ]
    return [
        *(group for group in groups if group["params"]),
        {"params": [*head.parameters()], "lr": rate * head_rate},
    ]


def thaw(stages: Sequence[nn.Module], epoch: int, epochs_each: float) -> None:
    """Freeze all but the last ``epoch / epochs_each`` stages: in epoch 0 the head is alone."""
    learning = len(stages) if epochs_each == 0 else int(epoch / epochs_each)
    frozen = len(stages) - learning
    for at, stage in enumerate(stages):
        stage.requires_grad_(at >= frozen)


def slanted_triangular(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Up over the first tenth of the steps, then down in a line to a 32nd.

    With ``T`` steps, ``c = 0.1 T`` and ``p = t/c`` before ``c``, ``1 - (t-c)/(T-c)`` after::

        rate(t) = rate · (1 + p · (32 - 1)) / 32
    """
    cut = max(1, int(steps * _CUT))

    def factor(step: int) -> float:
        share = step / cut if step < cut else 1 - (step - cut) / max(1, steps - cut)
        return (1 + max(0.0, share) * (_RATIO - 1)) / _RATIO

    return LambdaLR(optimizer, factor)


_BATCH = 32
_START = 100.0
"""Inverse penalty of the probe that the head starts from."""


@dataclass(frozen=True)
class TunedTower:
    """A tower and the head that was tuned with it."""

    tower: ImageTower
    reader: StageFeatures
    """Shares the tower's stages; to the features the head reads."""
    head: nn.Linear
    """``(n, features)`` → ``(n, classes)``."""
    classes: tuple[str, ...]
    spec: ImageInput
    """Of the tower as tuned: its input size is that of the tuning."""
    history: LossHistory
    """``validation`` is the mean recall of the classes held out; empty without."""

    @torch.inference_mode()
    def features(self, pixels: Tensor, *, bf16: bool = True) -> Tensor:
        """``(n, 3, S, S)`` uint8 → ``(n, features)`` float32, what the head reads."""
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            chunks = [
                self.reader(normalise_pixels(chunk, self.spec, self.spec.size)).float()
                for chunk in pixels.split(_BATCH)
            ]
        return torch.cat(chunks)

    @torch.inference_mode()
    def logits(self, pixels: Tensor, *, bf16: bool = True) -> Tensor:
        """``(n, 3, S, S)`` uint8 → ``(n, classes)`` float32."""
        logits: Tensor = self.head(self.features(pixels, bf16=bf16))
        return logits


def tune_tower(
    name: str,
    tower: ImageTower,
    spec: ImageInput,
    pictures: PictureSet,
    target: Tensor,
    classes: tuple[str, ...],
    settings: TowerSettings,
    run: Run,
    *,
    shots: int = 1,
) -> TunedTower:
    """Train a new head on ``tower``, and the tower with it; ``tower`` is changed in place.

    Args:
        name: of the loop, unique within ``run``.
        tower: with the source's weights.
        spec: of the tower.
        pictures: n of them, checked and decoded.
        target: ``(n,)`` int64, the class of each.
        classes: their names.
        settings: mode, rates, λ.
        run: seed, state to resume from, console.
        shots: labelled products each class must have.

    Raises:
        TrainingError: one class only, a class with fewer than ``shots`` pictures, features
            that are not numbers, or a loss that becomes so.
    """
    require_shots(target, classes, shots)
    generator = torch.Generator().manual_seed(run.seed)
    learn, held = hold_out(target, settings.validation, generator)
    tower.eval().to(memory_format=torch.channels_last)
    stages = TowerStages(tower)
    stop = stages.position(settings.stage) + 1
    first = {
        "heads-only": stop,
        "last-stage": min(stages.last(settings.size), stop - 1),
        "full": 0,
    }[settings.mode]
    tuned = stages.modules[first:stop]
    at_size = spec.model_copy(update={"size": settings.size})
    activations = Trunk(stages.modules[:first], at_size, settings).read(pictures.pixels, learn, run)
    tail = nn.Sequential(*tuned, PyramidPool(settings.grids))
    head = _start(activations.plain_features(tail)[learn], target[learn], classes, run)
    weights = class_weights(target[learn], len(classes))
    objective = TowerObjective(
        activations,
        tail,
        head,
        target,
        weights if settings.balance == "weights" else torch.ones(len(classes)),
        settings,
    )
    groups = rate_groups(tuned, head, settings.learning_rate, settings.decay, settings.head_rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    balanced = settings.balance == "sampler"

    def batches(_: int, generator: torch.Generator) -> Sequence[Tensor]:
        drawn = epoch_rows(target[learn], balanced, generator)
        return torch.split(learn[drawn], settings.batch_size)

    history = fit(
        name,
        objective,
        batches,
        optimizer,
        run,
        epochs=settings.epochs,
        schedule=slanted_triangular(
            optimizer, settings.epochs * -(-len(learn) // settings.batch_size)
        ),
        before_epoch=lambda epoch: thaw(tuned, epoch, settings.thaw_epochs),
        validate=(lambda: objective.mean_recall(held)) if len(held) else None,
        patience=settings.patience,
        bf16=settings.bf16,
    )
    tower.requires_grad_(False)
    head.requires_grad_(False)
    read = StageSettings(stages=(settings.stage,), grids=settings.grids)
    reader = StageFeatures(tower, read).eval()
    return TunedTower(tower.eval(), reader, head.eval(), classes, at_size, history)


def _start(features: Tensor, target: Tensor, classes: tuple[str, ...], run: Run) -> nn.Linear:
    """Return a probe of the untuned tower's features, as the initial head."""
    probe = fit_probe(features, target, classes, seed=run.seed, strengths=(_START,))
    head = nn.Linear(features.shape[1], len(classes))
    with torch.no_grad():
        head.weight.copy_(probe.weight)
        head.bias.copy_(probe.bias)
    return head


def tower_tuning(
    catalog: Catalog, labels: HeadLabels | None, settings: Settings, run: Run
) -> Callable[[Encoder], None] | None:
    """Return the function that tunes the loaded towers, or None to leave them as they are.

    Args:
        catalog: its pictures.
        labels: of the source category; without them there is nothing to tune on.
        settings: ``[tower]``.
        run: seed and kept progress.
    """
    mode = settings.tower.mode
    if mode == "heads-only":
        return None
    if labels is None:
        run.tell("no source types to tune the image tower on: it stays as it is")
        return None

    def tune(encoder: Encoder) -> None:
        tower, spec = encoder.image_tower, encoder.spec.image
        if tower is None or spec is None:
            run.tell("no picture to tune the image tower on")
            return
        size = settings.tower.size
        labelled = torch.nonzero(labels.target != UNLABELLED).flatten()
        rows = [int(row) for row in labelled if catalog.image_path(int(row)) is not None]
        pictures = read_pictures(catalog, rows, size, run.console)
        # The embedding is made of the pooled output, so that is what must tell types apart.
        tuned = TowerSettings(
            mode=mode, stage=-1, grids=(1,), **settings.tower.model_dump(exclude={"mode"})
        )
        target = labels.target[pictures.rows]
        classes, compact = torch.unique(target, return_inverse=True)
        names = tuple(labels.classes[int(value)] for value in classes)
        tune_tower("tower", tower, spec, pictures, compact, names, tuned, run)

    return tune
