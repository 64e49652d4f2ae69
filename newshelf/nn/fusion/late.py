"""Late fusion: an embedding from each modality, then a gate that weighs them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.nn.spec import FusionSpec

__all__ = ["LateFusion"]


class LateFusion(nn.Module):
    """Each modality is embedded by itself; a gate weighs the embeddings that are there.

    With ``t_m`` the projection of modality ``m`` (Gated Multimodal Unit, Arevalo et al.,
    2017, with a softmax over what is present)::

        e_m = O (t_m + F_m(t_m))
        g   = softmax over the present m of  w_m · norm(t_m) + b_m
        embedding = normalise(Σ_m g_m e_m)

    A modality never sees another one, so each embedding stands on its own when the others
    are absent. Where all are, a learned vector stands in.

    Shape: ``features`` one ``(B, width_m)`` per modality, ``present`` ``(B, modalities)``
    bool → ``(B, embedding)`` float32 of unit length.
    """

    def __init__(self, spec: FusionSpec, widths: list[int], embedding: int) -> None:
        super().__init__()
        width = spec.width
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width)) for size in widths
        )
        self.feed_forward = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.GELU(),
                nn.Dropout(spec.dropout),
                nn.Linear(width, width),
            )
            for _ in widths
        )
        self.gates = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1)) for _ in widths
        )
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.output = nn.Linear(width, embedding)

    def forward(self, features: list[Tensor], present: Tensor) -> Tensor:
        """The fused embedding."""
        own, gates = [], []
        for at, rows in enumerate(features):
            token = self.inputs[at](rows)
            own.append(token + self.feed_forward[at](token))
            gates.append(self.gates[at](token))
        # Very negative instead of minus infinity, which would divide 0 by 0 where all is absent.
        logits = torch.cat(gates, dim=1).masked_fill(~present, -1e4)
        weights = logits.softmax(dim=1) * present
        mixed = (weights.unsqueeze(-1) * torch.stack(own, dim=1)).sum(dim=1)
        none = ~present.any(dim=1, keepdim=True)
        return F.normalize(self.output(mixed + none * self.nothing), dim=-1)
