"""Stages of the image tower, and features read from its inner stages.

``TowerStages`` lists the modules of a timm backbone in the order in which they run, so that they
can be frozen, unfrozen and read one by one. The last stage of an ImageNet tower separates a
thousand classes wherever they are in the picture; for classes that ImageNet lacks, earlier
stages carry more (Yosinski et al., 2014; Head2Toe, Evci et al., 2022). A ring and a bracelet
differ in where the metal is, so a stage's map is averaged over the cells of grids.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.config import Positive
from newshelf.errors import TrainingError
from newshelf.files import StrictModel
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput

_BATCH = 32
_MAP_DIMENSIONS = 4


class StageSettings(StrictModel):
    """Features of one or more stages of the tower."""

    stages: Annotated[tuple[int, ...], Field(min_length=1)] = (-4, -3)
    """Counted like a Python index; -1 is the pooled output of the tower."""
    grids: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 3)
    """The stage's map is averaged over 1 × 1, 2 × 2 … cells."""
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (160, 224)
    """Heights and widths in pixels at which the tower reads the picture."""
    bf16: bool = True


class TowerStages:
    """The modules of ``tower`` in the order they run; they are shared, not copied.

    Raises:
        TrainingError: the architecture is neither an EfficientNet nor a ResNet.
    """

    def __init__(self, tower: ImageTower) -> None:
        named = _stages(tower.backbone)
        self.names = tuple(name for name, _ in named)
        self.modules = [module for _, module in named]

    def __len__(self) -> int:
        return len(self.modules)

    def position(self, stage: int) -> int:
        """Return the position from 0 of a stage counted like a Python index.

        Raises:
            TrainingError: the tower has no such stage.
        """
        if not -len(self) <= stage < len(self):
            raise TrainingError(
                f"stage {stage}: the tower has {len(self)}, from 0 to {len(self) - 1} "
                f"({', '.join(self.names)})"
            )
        return stage % len(self)

    @torch.no_grad()
    def lowest_resolution(self, size: int) -> int:
        """Return the first stage with the lowest resolution for pictures of ``size``."""
        x = torch.zeros(1, 3, size, size)
        sides = []
        for module in self.modules[:-1]:
            x = module(x)
            sides.append(x.shape[-1])
        return sides.index(min(sides))


def _stages(backbone: Any) -> list[tuple[str, nn.Module]]:
    parts = {name for name, _ in backbone.named_children()}
    if {"conv_stem", "bn1", "blocks", "conv_head", "bn2", "global_pool"} <= parts:
        stem = nn.Sequential(backbone.conv_stem, backbone.bn1)
        top = nn.Sequential(backbone.conv_head, backbone.bn2, backbone.global_pool)
        blocks = [(f"blocks.{at}", block) for at, block in enumerate(backbone.blocks)]
        return [("stem", stem), *blocks, ("top", top)]
    layers = [f"layer{at}" for at in (1, 2, 3, 4)]
    if {"conv1", "bn1", "act1", "maxpool", "global_pool", *layers} <= parts:
        stem = nn.Sequential(backbone.conv1, backbone.bn1, backbone.act1, backbone.maxpool)
        inner = [(name, getattr(backbone, name)) for name in layers]
        return [("stem", stem), *inner, ("top", backbone.global_pool)]
    raise TrainingError(
        f"{type(backbone).__name__} cannot be tuned stage by stage: use an EfficientNet or a "
        "ResNet, or mode = 'heads-only'"
    )


class PyramidPool(nn.Module):
    """Spatial pyramid (Lazebnik et al., 2006): means over 1 × 1, 2 × 2 … cells.

    Each grid is one block of unit length. An input without extent, such as a tower's pooled
    output, is one block whatever the grids.

    Shape: ``(N, C, h, w)`` or ``(N, C)`` → ``(N, C · Σ grid²)`` or ``(N, C)``, float32.
    """

    def __init__(self, grids: Sequence[int]) -> None:
        super().__init__()
        self._grids = tuple(grids)

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated blocks."""
        if x.ndim < _MAP_DIMENSIONS:
            return F.normalize(x.float(), dim=1)
        blocks = [F.adaptive_avg_pool2d(x.float(), grid).flatten(1) for grid in self._grids]
        return torch.cat([F.normalize(block, dim=1) for block in blocks], dim=1)


def normalise_pixels(pixels: Tensor, spec: ImageInput, size: int | None = None) -> Tensor:
    """``(n, 3, S, S)`` uint8 → ``(n, 3, size, size)`` float32, normalised for the tower."""
    x = pixels.float()
    if size is not None and size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    mean = torch.tensor(spec.mean).view(1, 3, 1, 1)
    std = torch.tensor(spec.std).view(1, 3, 1, 1)
    return ((x / 255 - mean) / std).to(memory_format=torch.channels_last)


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
    stages = TowerStages(tower.to(memory_format=torch.channels_last).eval())
    positions = {stages.position(stage) for stage in settings.stages}
    pool = PyramidPool(settings.grids)

    def blocks(x: Tensor) -> Tensor:
        found = []
        for position, module in enumerate(stages.modules[: max(positions) + 1]):
            x = module(x)
            if position in positions:
                found.append(pool(x))
        return torch.cat(found, dim=1)

    columns = []
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        for size in settings.sizes:
            chunks = [
                blocks(normalise_pixels(chunk, spec, size)).float()
                for chunk in pixels.split(_BATCH)
            ]
            columns.append(torch.cat(chunks))
    return torch.cat(columns, dim=1).clone()
