"""Network of domain adaptation: bottleneck, gradient reversal, discriminator, classifier.

Gradient reversal and its schedule: Ganin et al., JMLR 2016.
"""

import math
from typing import Any

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from newshelf.errors import TrainingError


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


_STEEPNESS = 10.0


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


def reverse_gradient(features: Tensor, scale: float) -> Tensor:
    """``R(x) = x`` forward, ``dR/dx = -λ I`` backward.

    Put between features and a domain discriminator: it learns to tell the domains apart,
    while the features learn to be told apart less.

    ``scale`` is λ ≥ 0; 0 stops the gradient.
    """
    reversed_features: Tensor = _Reversal.apply(features, scale)
    return reversed_features


def ramp(progress: float) -> float:
    """``λ = 2 / (1 + exp(-10 p)) - 1``: from 0 to 1 as training goes from p = 0 to 1.

    A discriminator that has learned nothing yet would only add noise to the features.
    """
    return 2.0 / (1.0 + math.exp(-_STEEPNESS * progress)) - 1.0


class Discriminator(nn.Module):
    """``d(x) = sigmoid(v · relu(W x + b) + c)``, trained to say 1 for the source, 0 for the target.

    Shape: ``(B_s, width)`` and ``(B_t, width)`` → ``()``.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(
        self, source: Tensor, target: Tensor, scale: float, weight: Tensor | None = None
    ) -> Tensor:
        """Binary cross-entropy, each domain weighing half, its gradient reversed by ``scale``.

        Args:
            source: ``(B_s, width)``.
            target: ``(B_t, width)``.
            scale: λ of the reversal.
            weight: ``(B_s + B_t,)`` ≥ 0, of the rows within their domain; None for equal.
        """
        rows = reverse_gradient(torch.cat([source, target]), scale)
        logits = self.layers(rows).squeeze(1)
        if weight is None:
            weight = torch.ones_like(logits)
        is_source, is_target = logits[: len(source)], logits[len(source) :]
        of_source, of_target = weight[: len(source)], weight[len(source) :]
        # log sigmoid(x) = -softplus(-x); log (1 - sigmoid(x)) = -softplus(x)
        source_loss = (of_source * F.softplus(-is_source)).sum() / of_source.sum()
        target_loss = (of_target * F.softplus(is_target)).sum() / of_target.sum()
        return (source_loss + target_loss) / 2


class Projection(nn.Module):
    """``P (x / |x| - m)``: unit length, then the main axes of both domains together.

    With 256 of a tower's 1,280 columns a step costs a fifth, and no label is looked at.
    Rows come out with a mean squared value of about 1.

    Shape: ``(N, F)`` float32 → ``(N, axes)``.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, axes: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes)

    @classmethod
    def of(cls, source: Labelled, target: Unlabelled, components: int) -> "Projection":
        """At most ``components`` axes; fewer where rows or columns are fewer."""
        rows = nn.functional.normalize(torch.cat([source.features, target.features]).float())
        count = min(components, *rows.shape)
        pca = PCA(count, svd_solver="covariance_eigh").fit(rows.double().cpu().numpy())
        scale = (count / max(float(pca.explained_variance_.sum()), 1e-12)) ** 0.5
        mean, axes = torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_ * scale)
        return cls(mean.float().to(rows.device), axes.float().to(rows.device))

    def forward(self, features: Tensor) -> Tensor:
        """Projected rows."""
        centred: Tensor = nn.functional.normalize(features) - self.mean
        return centred @ self.axes.T


class DomainClassifier(nn.Module):
    """Projection, bottleneck and classifier, in ``eval`` mode."""

    def __init__(self, projection: Projection, network: AdaptationNetwork) -> None:
        super().__init__()
        self.projection = projection
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Logits: ``(N, F)`` → ``(N, K)``."""
        self._check(features)
        logits: Tensor = self.network(self.projection(features))[1]
        return logits

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """Classes: ``(N, F)`` → ``(N,)`` int64."""
        logits: Tensor = self(features)
        return logits.argmax(dim=1)

    @torch.no_grad()
    def embed(self, features: Tensor) -> Tensor:
        """The bottleneck, where the domains were aligned: ``(N, F)`` → ``(N, H)``."""
        self._check(features)
        embedding: Tensor = self.network(self.projection(features))[0]
        return embedding

    def _check(self, features: Tensor) -> None:
        width = len(self.projection.mean)
        if features.shape[1] != width:
            raise TrainingError(
                f"the features are {features.shape[1]} wide, the classifier was adapted on "
                f"{width}: compute them with the same towers"
            )
