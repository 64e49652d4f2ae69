"""A stage's map averaged over the cells of grids: what is in the picture, and where."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PyramidPool"]

_MAP_DIMENSIONS = 4


class PyramidPool(nn.Module):
    """Spatial pyramid (Lazebnik et al., 2006): means over 1 × 1, 2 × 2 … cells.

    Each grid is one block of unit length, so that none drowns the others. What has no
    extent, such as the pooled output of a tower, has one block whatever the grids.

    Shape: ``(N, C, h, w)`` or ``(N, C)`` → ``(N, C · Σ grid²)`` or ``(N, C)``, float32.
    """

    def __init__(self, grids: Sequence[int]) -> None:
        super().__init__()
        self._grids = tuple(grids)

    def forward(self, x: Tensor) -> Tensor:
        """Unit-length blocks side by side."""
        if x.ndim < _MAP_DIMENSIONS:
            return F.normalize(x.float(), dim=1)
        blocks = [F.adaptive_avg_pool2d(x.float(), grid).flatten(1) for grid in self._grids]
        return torch.cat([F.normalize(block, dim=1) for block in blocks], dim=1)
