"""Early fusion: the modalities side by side, then one network over all of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.nn.spec import FusionSpec

__all__ = ["EarlyFusion"]


class EarlyFusion(nn.Module):
    """Projected features are concatenated, and a perceptron reads them together.

    With ``t_m`` the projection of modality ``m``, or zeros where it is absent, and ``p``
    the bits that say which are present::

        c = [t_1 … t_M, p]
        embedding = normalise(A c + B gelu(C norm(c)))

    The first layer sees all modalities at once, so any two may interact (Baltrušaitis et
    al., Multimodal machine learning, 2019); what is absent is a zero it must learn about,
    which is why the bits are there.

    Shape: ``features`` one ``(B, width_m)`` per modality, ``present`` ``(B, modalities)``
    bool → ``(B, embedding)`` float32 of unit length.
    """

    def __init__(self, spec: FusionSpec, widths: list[int], embedding: int) -> None:
        super().__init__()
        width = spec.width
        joined = len(widths) * width + len(widths)
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width)) for size in widths
        )
        self.direct = nn.Linear(joined, embedding)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(joined),
            nn.Linear(joined, 2 * width),
            nn.GELU(),
            nn.Dropout(spec.dropout),
            nn.Linear(2 * width, embedding),
        )

    def forward(self, features: list[Tensor], present: Tensor) -> Tensor:
        """The fused embedding."""
        has = present.to(features[0].dtype)
        tokens = torch.stack(
            [module(rows) for module, rows in zip(self.inputs, features, strict=True)], dim=1
        )
        joined = torch.cat([(tokens * has.unsqueeze(-1)).flatten(1), has], dim=1)
        return F.normalize(self.direct(joined) + self.feed_forward(joined), dim=-1)
