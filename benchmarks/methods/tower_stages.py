"""Features of a tower's inner stages at several sizes, and predictions of a tuned tower."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from newshelf.config import Positive
from newshelf.files import StrictModel
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.nn.tower_stages import PyramidPool, TowerStages
from newshelf.training.picture_data import normalise_pixels
from newshelf.training.tower_tuning import TowerSettings, TunedTower

_BATCH = 32


class StageSettings(StrictModel):
    """Features of one or more stages of the tower."""

    stages: Annotated[tuple[int, ...], Field(min_length=1)] = (-4, -3)
    """Counted like a Python index; -1 is the pooled output of the tower."""
    grids: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 3)
    """The stage's map is averaged over 1 × 1, 2 × 2 … cells."""
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (160, 224)
    """Heights and widths in pixels at which the tower reads the picture."""
    bf16: bool = True


@torch.inference_mode()
def stage_features(
    tower: ImageTower, spec: ImageInput, pixels: Tensor, settings: StageSettings
) -> Tensor:
    """Return pooled maps of the stages at each size, concatenated.

    ``pixels`` are ``(n, 3, S, S)`` uint8. The tower is put into ``eval`` mode; its weights do not
    change.

    Returns:
        ``(n, sizes · Σ channels · Σ grid²)`` float32, in blocks of unit length.

    Raises:
        TrainingError: the tower lacks a stage, or its architecture is unknown.
    """
    stages = TowerStages(tower.to(memory_format=torch.channels_last).eval().backbone)
    pool = PyramidPool(settings.grids)
    columns = []
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        for size in settings.sizes:
            chunks = []
            for chunk in pixels.split(_BATCH):
                blocks, _ = stages.read(normalise_pixels(chunk, spec, size), settings.stages, pool)
                chunks.append(torch.cat(blocks, dim=1).float())
            columns.append(torch.cat(chunks))
    return torch.cat(columns, dim=1).clone()


@torch.inference_mode()
def tuned_logits(
    tuned: TunedTower, settings: TowerSettings, pixels: Tensor, *, bf16: bool = True
) -> Tensor:
    """``(n, 3, S, S)`` uint8 → ``(n, classes)`` float32; ``settings`` are those of the tuning."""
    stage = StageSettings(
        stages=(settings.stage,), grids=settings.grids, sizes=(settings.size,), bf16=bf16
    )
    logits: Tensor = tuned.head(stage_features(tuned.tower, tuned.spec, pixels, stage))
    return logits
