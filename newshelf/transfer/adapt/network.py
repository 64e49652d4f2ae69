"""What all methods share: a bottleneck on the features, and a classifier on it."""

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
        self.embed = nn.Sequential(
            nn.Linear(width, bottleneck),
            nn.BatchNorm1d(bottleneck),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.classifier = nn.Linear(bottleneck, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and logits."""
        embedding = self.embed(features)
        return embedding, self.classifier(embedding)
