"""What all methods share: a bottleneck on the features, and a classifier on it."""

import torch
from torch import Tensor, nn

__all__ = ["AdaptationNetwork"]


class AdaptationNetwork(nn.Module):
    """``z = dropout(relu(batch_norm(W x + b)))``, ``logits = V z + c``.

    The layout that DAN, RTN, CDAN and MCC share: tower, bottleneck of 256, classifier.
    Batch normalisation runs over each domain's batch by itself in training, so that the two
    domains meet with like mean and variance.

    Shape: ``(B, width)`` float32 → ``(B, bottleneck)`` and ``(B, classes)``.
    """

    def __init__(self, width: int, classes: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.classes = classes
        self.bottleneck = bottleneck
        self.norm = nn.BatchNorm1d(bottleneck)
        self.embed = nn.Sequential(
            nn.Linear(width, bottleneck),
            self.norm,
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.classifier = nn.Linear(bottleneck, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and logits."""
        embedding = self.embed(features)
        return embedding, self.classifier(embedding)

    @torch.no_grad()
    def normalise_by(self, features: Tensor) -> None:
        """Take the running mean and variance from these rows alone: ``(N, width)``, N ≥ 2."""
        before = self.embed[0](features)
        # In place: they are buffers, and are kept with the weights.
        self.norm.running_mean.copy_(before.mean(dim=0))  # type: ignore[union-attr]
        self.norm.running_var.copy_(before.var(dim=0))  # type: ignore[union-attr]
