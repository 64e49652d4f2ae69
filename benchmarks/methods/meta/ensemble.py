"""Learners that read different features of the same rows, and the mean of what they say.

Each member ``m`` gives probabilities ``p_m``; the ensemble's score is their geometric mean::

    score_n = 1/M · Σ_m log p_m(n)

(logarithmic opinion pool; Genest and Zidek, 1986). Members that err on different queries
correct each other: a probe on pooled features, one on inner stages, a meta-learned network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.methods.meta.learner import (
    Classifier,
    FewShotLearner,
    check_queries,
    check_support,
)
from newshelf.errors import TrainingError

__all__ = ["Ensemble", "Member"]


@dataclass(frozen=True)
class Member:
    """A learner and the columns of the features that it reads."""

    learner: FewShotLearner
    columns: slice


@dataclass(frozen=True)
class Ensemble:
    """Adapts every member to the same support.

    Raises:
        TrainingError: it has no member.
    """

    members: Sequence[Member]
    name: str = "ensemble"

    def __post_init__(self) -> None:
        if not self.members:
            raise TrainingError("an ensemble of no learner cannot classify: give it a member")

    def adapt(self, support: Tensor, labels: Tensor) -> "Agreement":
        """Learn from ``support (S, F)``.

        Raises:
            TrainingError: see :func:`benchmarks.methods.meta.learner.check_support`, and what
                a member raises.
        """
        check_support(support, labels)
        adapted = [
            (member.learner.adapt(support[:, member.columns], labels), member.columns)
            for member in self.members
        ]
        return Agreement(adapted, support.shape[1])


@dataclass(frozen=True)
class Agreement:
    """Each member's classifier with its columns."""

    classifiers: Sequence[tuple[Classifier, slice]]
    width: int
    """Features of a query row."""

    @torch.no_grad()
    def scores(self, queries: Tensor) -> Tensor:
        """``(Q, F)`` → ``(Q, N)``: means of log-probabilities."""
        check_queries(queries, self.width)
        logs = [
            classifier.scores(queries[:, columns]).log_softmax(dim=1)
            for classifier, columns in self.classifiers
        ]
        return torch.stack(logs).mean(dim=0)
