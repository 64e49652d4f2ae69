"""A space in which the spread within a type is the same in every direction.

Types of the meta-training part say which directions vary among products of one type
(pose, colour, brand): those are shrunk for types never seen. With the within-class
covariance ``Σ_w`` and mean ``μ`` of the meta-training rows::

    z = (x - μ) U Λ^(-1/2) P,    (1 - α) Σ_w + α · tr(Σ_w)/F · I = U Λ Uᵀ

so that ``‖z_1 - z_2‖`` is a Mahalanobis distance: within-class covariance normalisation
(Hatch et al., 2006), with shrinkage (Ledoit and Wolf, 2004). ``P``, if asked for, keeps the
directions in which the turned rows vary most. A closed form: no step of gradient descent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.errors import TrainingError

_FEWEST_CLASSES = 2
_PER_CLASS = 250
"""Rows of a class that count, so that a huge one does not decide alone."""


@dataclass(frozen=True)
class Whitening:
    """``mean (F,)`` and ``matrix (F, E)``; an :class:`Embedding`."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """``(R, F)`` → ``(R, E)`` of unit length."""
        return F.normalize((features - self.mean) @ self.matrix, dim=-1)


@torch.no_grad()
def fit_whitening(
    features: Tensor, labels: Tensor, *, shrinkage: float = 0.1, width: int | None = None
) -> Whitening:
    """Learn it from the rows of the meta-training types.

    Args:
        features: ``(R, F)`` float32.
        labels: ``(R,)`` int64; negative for rows to leave out.
        shrinkage: α in (0, 1]; 1 only centres and scales.
        width: E, at most F; None keeps F.

    Raises:
        TrainingError: fewer than two classes have two rows, a feature is not a number, or
            ``shrinkage`` or ``width`` is out of range.
    """
    size = features.shape[1]
    if not 0 < shrinkage <= 1 or (width is not None and not 0 < width <= size):
        raise TrainingError(
            f"whitening with shrinkage {shrinkage} and width {width}: give a shrinkage in "
            f"(0, 1] and a width of at most {size}"
        )
    if not torch.isfinite(features[labels >= 0]).all():
        raise TrainingError("features to whiten are no numbers: leave such rows out")
    classes = [torch.nonzero(labels == value).flatten() for value in range(int(labels.max()) + 1)]
    classes = [rows[:_PER_CLASS] for rows in classes if len(rows) > 1]
    if len(classes) < _FEWEST_CLASSES:
        raise TrainingError(
            f"{len(classes)} classes have two rows or more: whitening learns from the spread "
            "within at least two"
        )
    means = torch.stack([features[rows].mean(dim=0) for rows in classes])
    residuals = torch.cat(
        [features[rows] - mean for rows, mean in zip(classes, means, strict=True)]
    )
    within = residuals.T @ residuals / len(residuals)
    floor = within.diagonal().mean()
    shrunk = (1 - shrinkage) * within + shrinkage * floor * torch.eye(size).to(within)
    values, vectors = torch.linalg.eigh(shrunk)
    matrix = vectors * values.rsqrt()
    centre = means.mean(dim=0)
    if width is not None:
        matrix = matrix @ _leading((features[torch.cat(classes)] - centre) @ matrix, width)
    return Whitening(centre, matrix)


def _leading(rows: Tensor, width: int) -> Tensor:
    """``(F, width)``: the directions of the largest variance, orthonormal.

    Where little is shrunk, the spread within classes is alike everywhere, so that these are
    the directions in which the class means differ.
    """
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    leading: Tensor = vectors[:, -width:]
    return leading
