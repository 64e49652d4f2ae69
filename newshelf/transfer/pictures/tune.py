"""Tune the image tower on a few labelled pictures, starting from what a source taught it.

    source classifier → freeze → new head → thaw stage by stage, each slower than the next

after ULMFiT (Howard and Ruder, 2018). The new head starts as a linear probe of the frozen
features, so that the first steps do not undo what the tower knows (LP-FT, Kumar et al.,
ICLR 2022). The loss of a batch is::

    CE(head(tower(picture)), class)  +  λ · ||w - w_source||²

The second term is L2-SP (Li et al., 2018); λ = 0 leaves it out. Normalisation keeps the
source's statistics: those of a batch of a few products are noise.

The same function trains the source classifier: its source is then what the tower came with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from newshelf.nn.spec import ImageInput
from newshelf.nn.towers import ImageTower
from newshelf.transfer.loop import History, fit
from newshelf.transfer.pictures.objective import TowerObjective
from newshelf.transfer.pictures.probe import fit_probe
from newshelf.transfer.pictures.pyramid import PyramidPool
from newshelf.transfer.pictures.read import Pictures
from newshelf.transfer.pictures.sampling import (
    class_weights,
    epoch_rows,
    hold_out,
    require_shots,
)
from newshelf.transfer.pictures.schedule import rate_groups, slanted_triangular, thaw
from newshelf.transfer.pictures.settings import StageSettings, TowerSettings
from newshelf.transfer.pictures.stage_features import StageFeatures, normalise_pixels
from newshelf.transfer.pictures.stages import TowerStages
from newshelf.transfer.pictures.trunk import Trunk
from newshelf.transfer.run import Run

__all__ = ["TunedTower", "tune_tower"]

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
    history: History
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
    pictures: Pictures,
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
    """A probe of the features the tower gives before it is tuned, as a layer to go on with."""
    probe = fit_probe(features, target, classes, seed=run.seed, strengths=(_START,))
    head = nn.Linear(features.shape[1], len(classes))
    with torch.no_grad():
        head.weight.copy_(probe.weight)
        head.bias.copy_(probe.bias)
    return head
