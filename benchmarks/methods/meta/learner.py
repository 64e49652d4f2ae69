"""What every few-shot learner is to its caller: a few labelled rows in, a classifier out."""

from typing import Protocol

import torch
from torch import Tensor

from newshelf.errors import TrainingError

__all__ = ["Classifier", "Embedding", "FewShotLearner", "check_queries", "check_support"]

_FEWEST_CLASSES = 2


class Embedding(Protocol):
    """Turns features into the space where a learner works."""

    def __call__(self, features: Tensor) -> Tensor:
        """``(R, F)`` → ``(R, E)``."""
        ...


class Classifier(Protocol):
    """Made by a learner for the N classes of one task."""

    def scores(self, queries: Tensor) -> Tensor:
        """``(Q, F)`` features → ``(Q, N)``, the highest is the predicted class."""
        ...


class FewShotLearner(Protocol):
    """Learns a new set of classes from a few rows of each.

    Example::

        classifier = learner.adapt(features[rows], torch.tensor([0, 0, 1, 1]))
        predicted = classifier.scores(others).argmax(dim=1)
    """

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    def adapt(self, support: Tensor, labels: Tensor) -> Classifier:
        """A classifier for the classes of ``labels``.

        Args:
            support: ``(S, F)`` float features.
            labels: ``(S,)`` int64, every class of 0..N-1 at least once, N ≥ 2.

        Raises:
            TrainingError: see :func:`check_support`.
        """
        ...


def check_support(support: Tensor, labels: Tensor) -> int:
    """The number of classes N; what cannot be learned from is refused before any work.

    Raises:
        TrainingError: the shapes do not fit, a class is missing, there is only one, or a
            feature is not a number.
    """
    if support.dim() != 2 or labels.shape != support.shape[:1]:  # noqa: PLR2004 (a matrix)
        raise TrainingError(
            f"support of shape {tuple(support.shape)} and labels of shape "
            f"{tuple(labels.shape)}: give (S, F) features and one label for each row"
        )
    seen = torch.unique(labels).tolist()
    if len(seen) < _FEWEST_CLASSES:
        raise TrainingError(
            f"the support has {len(seen)} class: give examples of at least two, there is "
            "nothing to tell apart otherwise"
        )
    if seen != list(range(len(seen))):
        raise TrainingError(
            f"the support's labels are {seen}: number the classes from 0, and give at least "
            "one example of each"
        )
    _check_finite(support, "the support")
    return len(seen)


def check_queries(queries: Tensor, width: int) -> None:
    """Refuse what a classifier for ``width`` features cannot read.

    Raises:
        TrainingError: another width, or a feature that is not a number.
    """
    if queries.dim() != 2 or queries.shape[1] != width:  # noqa: PLR2004 (a matrix)
        raise TrainingError(
            f"queries of shape {tuple(queries.shape)}: the support had {width} features a row, "
            "compute both with the same towers"
        )
    _check_finite(queries, "the queries")


def _check_finite(features: Tensor, what: str) -> None:
    bad = torch.nonzero(~torch.isfinite(features).all(dim=1)).flatten()
    if len(bad):
        raise TrainingError(
            f"row {int(bad[0])} of {what} has features that are no numbers ({len(bad)} such "
            "rows): leave them out, or compute their features anew"
        )
