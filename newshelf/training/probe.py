"""A linear head on frozen features: logistic regression, its strength from the shots alone.

Two classifiers as one: what only one of them is sure of counts less than what both say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor

from newshelf.errors import TrainingError
from newshelf.training.picture_data import require_shots

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Inverse weights of the penalty that cross-validation chooses from."""
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
    """The C that was chosen."""

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
    shots: int = 1,
    strengths: Sequence[float] = STRENGTHS,
    balance: bool = False,
    default: float = 100.0,
) -> Probe:
    """Minimise ``½ ||W||² + C · Σ cross-entropy``.

    C is chosen by stratified 5-fold cross-validation over the given rows when every class
    has ten of them; below that the folds say more about the draw than about C, and
    ``default`` is taken.

    Args:
        features: ``(n, features)`` float32, blocks of unit length.
        target: ``(n,)`` int64.
        classes: names of the classes.
        seed: of the folds.
        shots: rows each class must have.
        strengths: values of C to choose from; a single one is taken as it is.
        balance: weigh each class's loss by the inverse of its rows.
        default: C for few rows.

    Raises:
        TrainingError: fewer than two classes, too few rows of one, or features that are not
            numbers.
    """
    require_shots(target, classes, shots)
    broken = torch.nonzero(~torch.isfinite(features).all(dim=1)).flatten().tolist()
    if broken:
        raise TrainingError(
            f"the features of {len(broken)} of {len(features)} products are not numbers (rows "
            f"{', '.join(map(str, broken[:5]))} …): look at their pictures, or compute the "
            "features again without bf16"
        )
    x, y = features.numpy(), target.numpy()
    weighting = "balanced" if balance else None
    strength = default
    if len(strengths) == 1:
        strength = strengths[0]
    elif np.bincount(y).min() >= _MIN_FOR_FOLDS:
        strength = _choose(x, y, strengths, weighting, seed)
    model = LogisticRegression(C=strength, max_iter=_STEPS, class_weight=weighting).fit(x, y)
    weight, bias = model.coef_, model.intercept_
    if len(weight) < len(classes):
        # scikit-learn keeps one row for two classes: the second against the first.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Probe(_float(weight), _float(bias), strength)


def _choose(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    strengths: Sequence[float],
    weighting: str | None,
    seed: int,
) -> float:
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    means = []
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=_STEPS, class_weight=weighting)
        means.append(cross_val_score(model, x, y, cv=folds, scoring="neg_log_loss").mean())
    return strengths[int(np.argmax(means))]


def _float(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def geometric_mean(logits: Sequence[Tensor]) -> Tensor:
    """Log-probabilities of the classifiers' normalised geometric mean.

    ``log p(c) = 1/K · Σ_k log softmax(logits_k)_c - log Z``, a logarithmic opinion pool
    (Genest and Zidek, 1986). A probe of the frozen tower and a tuned tower err on different
    pictures, so their mean errs on fewer.

    Args:
        logits: K of ``(n, classes)`` each.

    Returns:
        ``(n, classes)``; the exponentials of a row sum to 1.
    """
    each = torch.stack([one.float().log_softmax(dim=1) for one in logits])
    return each.mean(dim=0).log_softmax(dim=1)
