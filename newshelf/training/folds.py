"""Folds for validation inside the training data: random ones, and ones of look-alike products."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from newshelf.errors import TrainingError
from newshelf.training.choose import Score
from newshelf.training.labels import UNLABELLED

_FOLDS = 5
_MIN_FOLDS = 2
_MOST = 600
"""Number of labelled products that validation uses; more would cost time and decide the same."""
_PER_GROUP, _MAX_GROUPS = 5, 100


@dataclass(frozen=True)
class Fold:
    """Rows to learn from and rows to validate on, int64; both have all the latter's classes."""

    learn: Tensor
    held: Tensor


@dataclass(frozen=True)
class Folds:
    """Folds of the same rows, drawn in two ways."""

    random: tuple[Fold, ...]
    grouped: tuple[Fold, ...]

    def score(self, measure: Callable[[Fold], float]) -> Score:
        """Return the results of ``measure`` on each fold."""
        return Score(tuple(map(measure, self.random)), tuple(map(measure, self.grouped)))


def validation_folds(target: Tensor, features: Tensor, seed: int) -> Folds:
    """Return folds of the labelled rows.

    ``target`` is ``(N,)`` int64, -1 for unlabelled. Rows whose ``features`` ``(N, F)`` fall into
    one cluster of k-means look alike, and are in one grouped fold.

    Raises:
        TrainingError: there are too few labelled rows.
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(torch.nonzero(target != UNLABELLED).flatten().numpy())[:_MOST]
    rows = np.sort(rows)
    truth = target[rows].numpy()
    _, counts = np.unique(truth, return_counts=True)
    if len(counts) < _MIN_FOLDS or len(rows) < 2 * _FOLDS or counts.max() < _FOLDS:
        raise TrainingError(
            f"{len(rows)} labelled products of {len(counts)} classes are too few to validate on: "
            f"{_FOLDS} folds need two classes, and {_FOLDS} products of one of them"
        )
    plain = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    apart = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    clusters = max(2 * _FOLDS, min(len(rows) // _PER_GROUP, _MAX_GROUPS))
    with warnings.catch_warnings():
        # There may be fewer distinct rows than clusters, and classes with fewer rows than folds.
        warnings.simplefilter("ignore", UserWarning)
        means = KMeans(clusters, n_init=1, random_state=seed)
        groups = means.fit_predict(features[rows].numpy())
        if (distinct := len(np.unique(groups))) < _FOLDS:
            raise TrainingError(
                f"the labelled products look alike in {distinct} ways, and {_FOLDS} are needed to "
                "keep look-alikes apart in validation"
            )
        return Folds(
            _usable(rows, truth, list(plain.split(rows, truth))),
            _usable(rows, truth, list(apart.split(rows, truth, groups))),
        )


def _usable(
    rows: np.ndarray, truth: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[Fold, ...]:
    """Return the folds, without classes that cannot be learned there."""
    folds = []
    for learn, held in splits:
        known = held[np.isin(truth[held], truth[learn])]
        if len(known) and len(np.unique(truth[learn])) > 1:
            folds.append(Fold(torch.from_numpy(rows[learn]), torch.from_numpy(rows[known])))
    if len(folds) < _MIN_FOLDS:
        raise TrainingError(
            "the labelled products of a class all look alike: none can be kept apart to validate on"
        )
    return tuple(folds)


def mean_recall(predicted: Tensor, truth: Tensor) -> float:
    """Return the accuracy averaged over the classes in ``truth``; both are ``(n,)`` int64."""
    correct = (predicted == truth).float()
    return float(torch.stack([correct[truth == value].mean() for value in truth.unique()]).mean())
