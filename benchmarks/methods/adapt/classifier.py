"""What adaptation gives back: a classifier of features for both domains."""

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.network import AdaptationNetwork
from newshelf.errors import TrainingError

__all__ = ["DomainClassifier", "Projection"]


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
