"""Stages of the image tower, and features read from its inner stages.

``TowerStages`` lists the modules of a timm backbone in the order in which they run, so that they
can be frozen, unfrozen and read one by one. The last stage of an ImageNet tower separates a
thousand classes wherever they are in the picture; for classes that ImageNet lacks, earlier
stages carry more (Yosinski et al., 2014; Head2Toe, Evci et al., 2022). A ring and a bracelet
differ in where the metal is, so a stage's map is averaged over the cells of grids.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.errors import TrainingError

_MAP_DIMENSIONS = 4


class TowerStages:
    """The modules of a timm ``backbone`` in the order they run; they are shared, not copied.

    Raises:
        TrainingError: the architecture is neither an EfficientNet nor a ResNet.
    """

    def __init__(self, backbone: nn.Module) -> None:
        named = _stages(backbone)
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

    def read(
        self, x: Tensor, stages: Sequence[int], pool: nn.Module
    ) -> tuple[list[Tensor], Tensor]:
        """Return the pooled maps of ``stages`` for a batch ``x``, and the tower's own output."""
        positions = {self.position(stage) for stage in stages}
        found = []
        for position, module in enumerate(self.modules):
            x = module(x)
            if position in positions:
                found.append(pool(x))
        return found, x

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
        f"{type(backbone).__name__} cannot be read stage by stage: use an EfficientNet or a "
        "ResNet, or neither tune the tower nor read inner stages"
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
        blocks = [_cells(x.float(), grid) for grid in self._grids]
        return torch.cat([F.normalize(block, dim=1) for block in blocks], dim=1)


def _cells(x: Tensor, grid: int) -> Tensor:
    """Return the means of ``grid`` × ``grid`` cells, ``(N, C · grid²)``.

    As ``adaptive_avg_pool2d``, which ONNX lacks where the sides are no multiples of the grid.
    """
    rows, columns = (
        [slice(at * side // grid, -(-(at + 1) * side // grid)) for at in range(grid)]
        for side in x.shape[-2:]
    )
    means = [x[:, :, row, column].mean(dim=(2, 3)) for row in rows for column in columns]
    return torch.stack(means, dim=2).flatten(1)
