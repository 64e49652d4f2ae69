"""Linear heads for classes with few labelled products, fitted where the embedding is whitened.

Classes with many products, those of the source, show which directions vary among products of one
class (pose, colour, brand); those are shrunk for classes never seen. With the within-class
covariance ``Σ_w`` and mean ``μ`` of such products::

    z = (x - μ) M,    M = U Λ^(-1/2),    (1 - α) Σ_w + α · tr(Σ_w)/F · I = U Λ Uᵀ

so that ``‖z_1 - z_2‖`` is a Mahalanobis distance: within-class covariance normalisation (Hatch et
al., 2006), with shrinkage α (Ledoit and Wolf, 2004). A head over ``z`` is one over ``x``, too.
"""

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.errors import TrainingError

_PER_CLASS = 250
"""Rows of a class that count, so that a huge one does not decide alone."""
ABSENT = -1e4
"""Bias of a class without labels."""

LinearHead = tuple[Tensor, Tensor]
"""``weight (K, E)`` and ``bias (K,)``."""


@torch.no_grad()
def set_head(layer: nn.Linear, head: LinearHead) -> None:
    """Give a layer the head's weights; the last classes, if ``head`` lacks them, never win."""
    weight, bias = head
    nn.init.zeros_(layer.weight)[: len(weight)] = weight
    nn.init.constant_(layer.bias, ABSENT)[: len(bias)] = bias


def predict_class(head: LinearHead, rows: Tensor) -> Tensor:
    """Return the classes ``(R,)`` int64 of ``rows (R, E)``."""
    weight, bias = head
    return (rows @ weight.T + bias).argmax(dim=1)


@torch.no_grad()
def fit_whitening(
    features: Tensor, labels: Tensor, *, shrinkage: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Return ``μ (F,)`` and ``M (F, F)`` for ``features (R, F)``; ``labels`` < 0 are left out.

    ``shrinkage`` is α in (0, 1]; 1 only centres and scales.

    Raises:
        TrainingError: fewer than two classes have two rows.
    """
    classes = [torch.nonzero(labels == value).flatten() for value in range(int(labels.max()) + 1)]
    classes = [rows[:_PER_CLASS] for rows in classes if len(rows) > 1]
    if len(classes) < 2:  # noqa: PLR2004
        raise TrainingError(
            f"{len(classes)} classes have two rows or more: whitening learns from the spread "
            "within at least two"
        )
    means = torch.stack([features[rows].mean(dim=0) for rows in classes])
    residuals = torch.cat(
        [features[rows] - mean for rows, mean in zip(classes, means, strict=True)]
    )
    within = residuals.T @ residuals / len(residuals)
    floor = within.diagonal().mean() * torch.eye(len(within)).to(within)
    values, vectors = torch.linalg.eigh((1 - shrinkage) * within + shrinkage * floor)
    return means.mean(dim=0), vectors * values.rsqrt()


def fit_probe(
    rows: Tensor,
    labels: Tensor,
    c: float = 10.0,
    *,
    intercept: bool = True,
) -> LinearHead:
    """Return a logistic regression on unit vectors ``(S, E)``; a class without rows never wins.

    ``c`` is the inverse of the L2 penalty.
    """
    present, known = labels.unique(return_inverse=True)
    if len(present) == 1:
        raise TrainingError(f"all {len(rows)} products to learn from are of one class")
    # The penalty keeps the weights in the span of the rows: S coordinates do for E.
    axes, coordinates = torch.linalg.qr(rows.T)
    model = LogisticRegression(C=c, max_iter=1000, fit_intercept=intercept)
    model.fit(coordinates.T.cpu().numpy(), known.cpu().numpy())
    weight = torch.from_numpy(model.coef_).to(rows) @ axes.T
    bias = torch.from_numpy(model.intercept_).to(rows).expand(len(weight))
    if len(weight) == 1:  # one row stands for two classes
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return _of_all_classes(weight, bias, present)


def _of_all_classes(weight: Tensor, bias: Tensor, present: Tensor) -> LinearHead:
    """Return rows for classes 0 … max(present), given those of the present ones."""
    count = int(present.max()) + 1
    every = weight.new_zeros(count, weight.shape[1]).index_copy(0, present, weight)
    return every, weight.new_full((count,), ABSENT).index_copy(0, present, bias)


@torch.no_grad()
def whitened_head(embeddings: Tensor, target: Tensor, rows: Tensor, source: Tensor) -> LinearHead:
    """Return a probe of the few ``rows``, fitted where the embedding is whitened.

    ``embeddings`` are ``(N, E)`` of all products; ``target`` and ``source`` ``(N,)`` are classes,
    -1 for unlabelled. The whitening learns from ``source``.

    Raises:
        TrainingError: fewer than two source classes have two products.
    """
    mean, matrix = fit_whitening(embeddings, source)
    white = (embeddings - mean) @ matrix
    present, known = target[rows].unique(return_inverse=True)
    weight, _ = fit_probe(F.normalize(white[rows], dim=1), known, intercept=False)
    # The length of a whitened row scales the scores of all classes alike: its mean stands for it.
    weight = weight @ matrix.T / white.norm(dim=1).mean()
    return _of_all_classes(weight, -weight @ mean, present)
