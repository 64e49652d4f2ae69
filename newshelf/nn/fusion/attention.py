"""Attention fusion: one vector from the modalities that are present."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.nn.spec import FusionSpec

__all__ = ["AttentionFusion"]


class AttentionFusion(nn.Module):
    """A learned query attends to one token per modality; absent ones are masked.

    A learned token stands beside the modalities and is never masked, so a row in which
    everything is absent still has a finite embedding. The attention is multi-head
    scaled dot-product (Vaswani et al., 2017), its result added to the mean of the
    present tokens, then a feed-forward block and L2 normalisation.

    Shape: ``features`` one ``(B, width_m)`` per modality, ``present`` ``(B, modalities)``
    bool → ``(B, embedding)`` float32 of unit length.
    """

    def __init__(self, spec: FusionSpec, widths: list[int], embedding: int) -> None:
        super().__init__()
        width = spec.width
        self.heads = spec.heads
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width)) for size in widths
        )
        self.modality = nn.Parameter(torch.randn(len(widths), width) * 0.02)
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(spec.dropout),
            nn.Linear(2 * width, width),
        )
        self.output = nn.Linear(width, embedding)

    def forward(self, features: list[Tensor], present: Tensor) -> Tensor:
        """The fused embedding."""
        batch = present.shape[0]
        tokens = torch.stack(
            [module(rows) for module, rows in zip(self.inputs, features, strict=True)], dim=1
        )
        tokens = (tokens + self.modality) * present.unsqueeze(-1)
        count = present.sum(dim=1, keepdim=True).clamp(min=1).to(tokens.dtype)
        mean = tokens.sum(dim=1) / count
        nothing = self.nothing.expand(batch, 1, -1)
        mixed = mean + self._attend(torch.cat([nothing, tokens], dim=1), present)
        mixed = mixed + self.feed_forward(mixed)
        return F.normalize(self.output(mixed), dim=-1)

    def _attend(self, tokens: Tensor, present: Tensor) -> Tensor:
        """``(B, 1 + modalities, width)`` → ``(B, width)``."""
        batch, length, width = tokens.shape
        key, value = self.key_value(self.norm(tokens)).chunk(2, dim=-1)
        size = width // self.heads
        key = key.view(batch, length, self.heads, size)
        value = value.view(batch, length, self.heads, size)
        query = self.query.view(self.heads, size)
        logits = (key * query).sum(dim=-1) * size**-0.5
        always = torch.ones_like(present[:, :1])
        mask = torch.cat([always, present], dim=1).unsqueeze(-1)
        weights = logits.masked_fill(~mask, -1e4).softmax(dim=1)
        pooled = (weights.unsqueeze(-1) * value).sum(dim=1)
        mixed: Tensor = self.mix(pooled.reshape(batch, width))
        return mixed
