"""Linear probe of frozen features: logistic regression with a cross-validated penalty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor

from newshelf.errors import TrainingError
from newshelf.training.picture_data import require_classes

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Inverse weights of the penalty that cross-validation chooses from."""
_DEFAULT_STRENGTH = 100.0
_FOLDS = 5
_MIN_FOR_FOLDS = 10
_STEPS = 400


@dataclass(frozen=True)
class Probe:
    """``logits = features · weightᵀ + bias``."""

    weight: Tensor
    """``(classes, features)`` float32."""
    bias: Tensor
    """``(classes,)`` float32."""
    strength: float
    """The chosen C."""

    def logits(self, features: Tensor) -> Tensor:
        """``(n, features)`` → ``(n, classes)``."""
        return features @ self.weight.T + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """``(n, features)`` → ``(n,)`` int64, the likeliest class."""
        return self.logits(features).argmax(dim=1)


def fit_probe(
    features: Tensor,
    target: Tensor,
    classes: tuple[str, ...],
    *,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """Minimise ``½ ||W||² + C · Σ cross-entropy``.

    C is chosen by stratified 5-fold cross-validation if every class has ten rows. With fewer,
    the folds depend on the draw more than on C, and C is 100.

    ``features`` are ``(n, features)`` float32 in blocks of unit length, ``target`` ``(n,)`` int64.
    A single one of ``strengths`` is used as it is.

    Raises:
        TrainingError: fewer than two classes, a class without rows, or features that are not
            finite.
    """
    require_classes(target, classes)
    broken = torch.nonzero(~torch.isfinite(features).all(dim=1)).flatten().tolist()
    if broken:
        raise TrainingError(
            f"the features of {len(broken)} of {len(features)} products are not numbers (rows "
            f"{', '.join(map(str, broken[:5]))} …): look at their pictures, or compute the "
            "features again without bf16"
        )
    x, y = features.numpy(), target.numpy()
    strength = _DEFAULT_STRENGTH
    if len(strengths) == 1:
        strength = strengths[0]
    elif np.bincount(y).min() >= _MIN_FOR_FOLDS:
        strength = _choose(x, y, strengths, seed)
    model = LogisticRegression(C=strength, max_iter=_STEPS).fit(x, y)
    weight, bias = model.coef_, model.intercept_
    if len(weight) < len(classes):
        # scikit-learn keeps one row for two classes: the second against the first.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Probe(_float(weight), _float(bias), strength)


def _choose(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    strengths: Sequence[float],
    seed: int,
) -> float:
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    means = []
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=_STEPS)
        means.append(cross_val_score(model, x, y, cv=folds, scoring="neg_log_loss").mean())
    return strengths[int(np.argmax(means))]


def _float(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
