"""Principal components of both domains, for features that are wide."""

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Module):
    """``P (x / |x| - m)``: unit length, then the principal components of both domains together.

    Rows come out with a mean squared value of about 1: ``(N, F)`` float32 → ``(N, components)``.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, source: Tensor, target: Tensor, components: int = 256) -> None:
        """Fit at most ``components``; fewer where rows or columns are fewer."""
        super().__init__()
        rows = F.normalize(torch.cat([source, target]).float())
        count = min(components, *rows.shape)
        pca = PCA(count, svd_solver="covariance_eigh").fit(rows.double().cpu().numpy())
        scale = (count / max(float(pca.explained_variance_.sum()), 1e-12)) ** 0.5
        self.register_buffer("mean", torch.from_numpy(pca.mean_).to(rows))
        self.register_buffer("axes", torch.from_numpy(pca.components_ * scale).to(rows))

    def forward(self, features: Tensor) -> Tensor:
        """Return projected rows."""
        return (F.normalize(features) - self.mean) @ self.axes.T
