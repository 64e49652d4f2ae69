"""Tuning of the image tower on a few labelled pictures, starting from its source weights.

    source weights → frozen tower, new head → thaw stage by stage, earlier stages slower

after ULMFiT (Howard and Ruder, 2018). The new head starts as a linear probe of the frozen
features, so that the first steps do not undo what the tower knows (LP-FT, Kumar et al.,
ICLR 2022). The loss of a batch is::

    CE(head(tower(picture)), class)  +  λ · ||w - w_source||²

The second term is L2-SP (Li et al., 2018). Batch normalisation keeps the source's statistics:
those of a batch of a few products are noise. ``newshelf.training.finetune`` learns on cached
features of frozen towers; this module changes the tower before these features are computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.transforms.v2.functional import resize

from newshelf.catalog.catalog import Catalog
from newshelf.config import Positive, Settings, TowerTuningSettings
from newshelf.errors import TrainingError
from newshelf.nn.encoder import Encoder, ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.nn.tower_stages import PyramidPool, TowerStages
from newshelf.training.choose import mean_recall
from newshelf.training.few_shot import fit_probe, set_head
from newshelf.training.labels import UNLABELLED, HeadLabels, class_weights
from newshelf.training.loop import LossHistory, Objective, fit
from newshelf.training.picture_data import (
    PictureSet,
    augment_pictures,
    epoch_rows,
    normalise_pixels,
    read_pictures,
    require_classes,
    split_validation,
)
from newshelf.training.run import Run

_CPU = torch.device("cpu")
_BATCH = 32
PROBE_STRENGTH = 100.0
"""Inverse penalty of the probe that the head starts from."""
_WARM_UP = 0.11
"""Share of the steps in which the learning rate rises; then it falls (slanted triangular)."""
_RATE_RATIO = 32.0
"""Largest learning rate relative to the smallest."""


class TowerSettings(TowerTuningSettings):
    """All settings of the tuning; ``[tower]`` has the inherited ones, with its own defaults."""

    mode: Literal["heads-only", "last-stage", "full"] = "last-stage"
    stage: int = -3
    """The head reads this stage of the tower, counted like a Python index; -1 is its pooled
    output. For classes that ImageNet lacks, a stage before the last carries more."""
    grids: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 3)
    """The stage's map is averaged over 1 × 1, 2 × 2 … cells."""
    epochs: Positive = 20
    batch_size: Positive = 32
    head_rate: Annotated[float, Field(gt=0)] = 3.0
    """Learning rate of the head relative to that of the last stage."""
    decay: Annotated[float, Field(ge=1)] = 2.6
    """Ratio of the learning rates of a stage and the one before it."""
    thaw_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Epochs after which one more stage is thawed; 0 thaws all of the mode at once."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Of the head, which has no source weights."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    views: Positive = 6
    """Number of augmented views per picture that ``last-stage`` computes in advance."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of each class for early stopping; unused if a class has fewer than ten pictures."""
    patience: Positive = 6


@dataclass(frozen=True)
class Activations:
    """Inputs of the trainable part of the tower for n pictures."""

    plain: Tensor
    """``(n, …)``: without augmentation; uint8 pixels if nothing is frozen."""
    views: Tensor
    """``(views, n, …)``: augmented; empty if they are computed in every epoch."""
    spec: ImageInput
    augment: bool
    bf16: bool

    def training_inputs(self, rows: Tensor) -> Tensor:
        """``(len(rows), …)`` float32: one view of each, drawn by torch's global generator."""
        if len(self.views):
            drawn = torch.randint(len(self.views), (len(rows),))
            return self.views[drawn, rows].float()
        if self.plain.dtype == torch.uint8 and self.augment:
            return normalise_pixels(augment_pictures(self.plain[rows]), self.spec)
        return self.plain_inputs(rows)

    def plain_inputs(self, rows: Tensor) -> Tensor:
        """``(len(rows), …)`` float32, without augmentation."""
        if self.plain.dtype == torch.uint8:
            return normalise_pixels(self.plain[rows], self.spec)
        return self.plain[rows].float()

    @torch.no_grad()
    def plain_features(self, tail: nn.Module, rows: Tensor) -> Tensor:
        """``(len(rows), features)`` float32 through the rest of the tower."""
        with torch.autocast(self.plain.device.type, torch.bfloat16, enabled=self.bf16):
            return torch.cat([tail(self.plain_inputs(part)).float() for part in rows.split(_BATCH)])


def read_activations(
    stages: Sequence[nn.Module],
    spec: ImageInput,
    settings: TowerSettings,
    pixels: Tensor,
    learn: Tensor,
    run: Run,
) -> Activations:
    """Return the outputs of the tower's frozen first ``stages``.

    ``pixels`` ``(n, 3, S, S)`` uint8 are resized to the tuning's size. ``settings.views`` augmented
    views of those at the positions ``learn`` pass the stages once and are kept in half precision.
    Without frozen stages, pictures are augmented in every epoch.
    """
    pixels = resize(pixels, [spec.size, spec.size])
    if not stages:
        return Activations(pixels, pixels[:0], spec, settings.augment, settings.bf16)
    trunk = nn.Sequential(*stages).requires_grad_(False)

    @torch.no_grad()
    def outputs(pixels: Tensor, label: str, *, augment: bool = False) -> Tensor:
        found = []
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=settings.bf16):
            for chunk in track(
                pixels.split(_BATCH), label, console=run.console, disable=run.quiet, transient=True
            ):
                changed = augment_pictures(chunk) if augment else chunk
                found.append(trunk(normalise_pixels(changed, spec)).half())
        return torch.cat(found)

    plain = outputs(pixels, "pictures")
    views = plain[:0]
    if settings.augment:
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            views = plain.new_zeros(settings.views, *plain.shape)
            for number, view in enumerate(views, 1):
                view[learn] = outputs(pixels[learn], f"view {number}", augment=True)
    return Activations(plain, views, spec, settings.augment, settings.bf16)


class TowerObjective(Objective):
    """``CE(head(tail(x)), class) + λ · ||w - w_source||²`` over a batch of positions.

    ``head`` leads from the pooled features of ``tail`` to classes; ``target`` is ``(n,)`` int64,
    ``weights`` ``(classes,)`` float32.
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
        self._source = [parameter.detach().clone() for parameter in tail.parameters()]
        self._activations = activations
        self._target = target.to(activations.plain.device)
        self._weights = weights.to(activations.plain.device)
        self._settings = settings

    def train(self, mode: bool = True) -> "TowerObjective":
        """Set the mode; batch normalisation keeps the source's statistics."""
        super().train(mode)
        for module in self.tail.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``batch (B,)`` int64 → ``loss``, ``classes`` and, with λ > 0, ``distance``."""
        logits = self.head(self.tail(self._activations.training_inputs(batch)))
        smoothing = self._settings.label_smoothing
        classes = F.cross_entropy(
            logits.float(), self._target[batch], self._weights, label_smoothing=smoothing
        )
        if self._settings.l2_sp == 0:
            return {"loss": classes, "classes": classes.detach()}
        pairs = zip(self.tail.parameters(), self._source, strict=True)
        distance = sum(
            ((now - source).square().sum() for now, source in pairs if now.requires_grad),
            classes.new_zeros(()),
        )
        loss = classes + self._settings.l2_sp * distance
        return {"loss": loss, "classes": classes.detach(), "distance": distance.detach()}

    @torch.no_grad()
    def mean_recall(self, rows: Tensor) -> float:
        """Return the recall on ``rows``, averaged over the classes."""
        predicted = self.head(self._activations.plain_features(self.tail, rows)).argmax(dim=1)
        return mean_recall(predicted, self._target[rows])


def rate_groups(
    stages: Sequence[nn.Module], head: nn.Module, rate: float, decay: float, head_rate: float
) -> list[dict[str, Any]]:
    """Return optimizer groups: stage i of n learns with ``rate / decay^(n - 1 - i)``."""
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
    """Freeze all but the last ``epoch / epochs_each`` stages: all of them in epoch 0."""
    thawed = len(stages) if epochs_each == 0 else int(epoch / epochs_each)
    frozen = len(stages) - thawed
    for at, stage in enumerate(stages):
        stage.requires_grad_(at >= frozen)


@dataclass(frozen=True)
class TunedTower:
    """A tower and the head that was tuned with it."""

    tower: ImageTower
    head: nn.Linear
    """``(n, features)`` → ``(n, classes)``."""
    spec: ImageInput
    """Input of the tuned tower, with the size used for tuning."""
    history: LossHistory
    """``validation`` is the mean recall on held-out pictures; empty without any."""


def tune_tower(
    name: str,
    tower: ImageTower,
    spec: ImageInput,
    pictures: PictureSet,
    target: Tensor,
    classes: tuple[str, ...],
    settings: TowerSettings,
    run: Run,
    device: torch.device = _CPU,
) -> TunedTower:
    """Train a new head on ``tower``, and the tower with it; ``tower`` changes in place.

    ``name`` is unique within ``run``; ``target`` is the class ``(n,)`` int64 of each picture. The
    pictures are all on ``device``, which trains; the result is on the CPU.

    Raises:
        TrainingError: fewer than two classes, a class without pictures, or features or a loss
            that are not finite.
    """
    require_classes(target, classes)
    learn, held = split_validation(target, settings.validation, run.seed)
    tower.eval().to(memory_format=torch.channels_last)
    stages = TowerStages(tower.backbone)
    stop = stages.position(settings.stage) + 1
    first = {
        "heads-only": stop,
        "last-stage": min(stages.lowest_resolution(settings.size), stop - 1),
        "full": 0,
    }[settings.mode]
    tuned = stages.modules[first:stop]
    at_size = spec.model_copy(update={"size": settings.size})
    tower.to(device)
    pixels = pictures.pixels.to(device)
    activations = read_activations(stages.modules[:first], at_size, settings, pixels, learn, run)
    tail = nn.Sequential(*tuned, PyramidPool(settings.grids))
    features = activations.plain_features(tail, learn).cpu()
    head = linear_probe(features, target[learn], classes).to(device)
    weights = class_weights(target[learn], len(classes), 1.0)
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
        schedule=OneCycleLR(
            optimizer,
            [group["lr"] for group in groups],
            settings.epochs * -(-len(learn) // settings.batch_size),
            pct_start=_WARM_UP,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=_RATE_RATIO,
            final_div_factor=1.0,
        ),
        before_epoch=lambda epoch: thaw(tuned, epoch, settings.thaw_epochs),
        validate=(lambda: objective.mean_recall(held)) if len(held) else None,
        patience=settings.patience,
        bf16=settings.bf16,
    )
    tower.requires_grad_(False)
    head.requires_grad_(False)
    return TunedTower(tower.eval().cpu(), head.eval().cpu(), at_size, history)


def linear_probe(
    features: Tensor, target: Tensor, classes: tuple[str, ...], strength: float = PROBE_STRENGTH
) -> nn.Linear:
    """Minimise ``½ ||W||² + C · Σ cross-entropy``, with C the ``strength``.

    ``features`` are ``(n, features)`` float32 in blocks of unit length, ``target`` ``(n,)`` int64.

    Raises:
        TrainingError: fewer than two classes, a class without rows, or features that are not
            finite.
    """
    require_classes(target, classes)
    broken = torch.nonzero(~torch.isfinite(features).all(dim=1)).flatten().tolist()
    if broken:
        raise TrainingError(
            f"the features of {len(broken)} of {len(features)} products are not numbers (rows "
            f"{', '.join(map(str, broken[:5]))} …): look at their pictures, or compute the "
            "features again without bf16"
        )
    head = nn.Linear(features.shape[1], len(classes))
    set_head(head, fit_probe(features, target, strength))
    return head


def tower_tuning(
    catalog: Catalog, labels: HeadLabels | None, settings: Settings, run: Run
) -> Callable[[Encoder], None] | None:
    """Return a function that tunes the loaded towers, or None to leave them as they are.

    ``labels`` are those of the source category.
    """
    if settings.tower.mode == "heads-only":
        return None
    if labels is None:
        run.tell("no source types to tune the image tower on: it stays as it is")
        return None

    def tune(encoder: Encoder) -> None:
        tower, spec = encoder.image_tower, encoder.spec.image
        if tower is None or spec is None:
            run.tell("no picture to tune the image tower on")
            return
        labelled = torch.nonzero(labels.target != UNLABELLED).flatten()
        rows = [int(row) for row in labelled if catalog.image_path(int(row)) is not None]
        pictures = read_pictures(catalog, rows, settings.tower.size, run.console)
        # The embedding reads the pooled output, so the tuning does, too.
        tuning = TowerSettings(stage=-1, grids=(1,), **settings.tower.model_dump())
        target = labels.target[pictures.rows]
        classes, compact = torch.unique(target, return_inverse=True)
        names = tuple(labels.classes[int(value)] for value in classes)
        # Only then are all pictures pixels, of which a GPU has room for many.
        on_gpu = tuning.mode == "full" and torch.cuda.is_available()
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else _CPU
        tune_tower("tower", tower, spec, pictures, compact, names, tuning, run, device)

    return tune
