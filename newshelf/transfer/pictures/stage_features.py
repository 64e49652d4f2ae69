"""Features from the inner stages of a frozen tower, with where in the picture they are.

The last stage of an ImageNet tower is made to tell a thousand things apart wherever they
are; for things it has no name for, the stages before it say more (Yosinski et al., 2014;
head2toe, Evci et al., 2022). A ring and a bracelet differ in where the metal runs, so a
stage's map is averaged over the cells of grids.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.nn.spec import ImageInput
from newshelf.nn.towers import ImageTower
from newshelf.transfer.pictures.pyramid import PyramidPool
from newshelf.transfer.pictures.settings import StageSettings
from newshelf.transfer.pictures.stages import TowerStages

__all__ = ["StageFeatures", "normalise_pixels", "stage_features"]

_BATCH = 32


class StageFeatures(nn.Module):
    """Pictures to pooled maps of some stages, side by side, each of unit length.

    Shape: ``(N, 3, size, size)`` float32 → ``(N, Σ channels · Σ grid²)`` float32.

    Raises:
        TrainingError: a stage the tower does not have.
    """

    def __init__(self, tower: ImageTower, settings: StageSettings) -> None:
        super().__init__()
        self._stages = TowerStages(tower)
        self.parts = nn.ModuleList(self._stages.modules)
        self._wanted = sorted({self._stages.position(at) for at in settings.stages})
        self._pool = PyramidPool(settings.grids)

    def forward(self, image: Tensor) -> Tensor:
        """Unit-length blocks side by side."""
        blocks: list[Tensor] = []
        x = image
        for at, stage in enumerate(self.parts[: self._wanted[-1] + 1]):
            x = stage(x)
            if at in self._wanted:
                blocks.append(self._pool(x))
        return torch.cat(blocks, dim=1)


def normalise_pixels(pixels: Tensor, spec: ImageInput, size: int | None = None) -> Tensor:
    """``(n, 3, S, S)`` uint8 → ``(n, 3, size, size)`` float32 as the tower was trained on."""
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
    """``(n, features)`` float32: all sizes of ``settings``, side by side.

    Args:
        tower: in ``eval`` mode after; its weights stay as they are.
        spec: its mean and standard deviation.
        pixels: ``(n, 3, S, S)`` uint8.
        settings: stages, grids and sizes.
    """
    read = StageFeatures(tower.to(memory_format=torch.channels_last), settings).eval()
    columns = []
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        for size in settings.sizes:
            chunks = [
                read(normalise_pixels(chunk, spec, size)).float() for chunk in pixels.split(_BATCH)
            ]
            columns.append(torch.cat(chunks))
    return torch.cat(columns, dim=1).clone()
