"""A timm backbone as a row of stages, to be frozen, thawed, cut and read one by one."""

from typing import Any

import torch
from torch import Tensor, nn

from newshelf.errors import TrainingError
from newshelf.nn.towers import ImageTower

__all__ = ["TowerStages"]


class TowerStages:
    """The modules of ``tower`` in the order they run; they are shared, not copied.

    ``run(x, 0, len(stages))`` is what ``tower(x)`` computes.

    Raises:
        TrainingError: the architecture is neither of EfficientNet's nor of ResNet's kind.
    """

    def __init__(self, tower: ImageTower) -> None:
        named = _stages(tower.backbone)
        self.names = tuple(name for name, _ in named)
        self.modules = [module for _, module in named]

    def __len__(self) -> int:
        return len(self.modules)

    def position(self, stage: int) -> int:
        """A stage counted like a Python index, counted from 0.

        Raises:
            TrainingError: the tower has no such stage.
        """
        if not -len(self) <= stage < len(self):
            raise TrainingError(
                f"stage {stage}: the tower has {len(self)}, from 0 to {len(self) - 1} "
                f"({', '.join(self.names)})"
            )
        return stage % len(self)

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """From the input of stage ``start`` to the output of the stage before ``stop``."""
        for module in self.modules[start:stop]:
            x = module(x)
        return x

    @torch.no_grad()
    def last(self, size: int) -> int:
        """The first stage that works at the lowest resolution, with pictures of ``size``."""
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
