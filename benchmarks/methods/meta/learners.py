"""Few-shot learners on frozen features: prototypes, linear probes, ensembles.

Prototypes: Snell et al., 2017. Every learner takes a few labelled rows and returns a classifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.errors import TrainingError
from newshelf.training.few_shot import fit_probe

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
        """Its name in reports."""
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
            "rows): leave them out, or compute their features again"
        )


Metric = Literal["euclidean", "cosine"]


def class_means(rows: Tensor, labels: Tensor, ways: int) -> Tensor:
    """``c_n = 1/|S_n| · Σ_{i ∈ S_n} z_i``.

    Shape: ``(S, E)`` and ``(S,)`` int64 → ``(ways, E)``. Differentiable, and free of
    branches on values, so that ``torch.func.vmap`` can run it over tasks.
    """
    members = F.one_hot(labels, ways).to(rows.dtype)
    return members.T @ rows / members.sum(dim=0).unsqueeze(1)


def prototype_scores(queries: Tensor, means: Tensor, metric: Metric) -> Tensor:
    """``-‖z - c_n‖²``, or the cosine of ``z`` and ``c_n``.

    Shape: ``(Q, E)`` and ``(N, E)`` → ``(Q, N)``.
    """
    if metric == "cosine":
        return F.normalize(queries, dim=-1) @ F.normalize(means, dim=-1).T
    # Without ‖z‖², which is the same for every class, subtracted only for its meaning.
    squares = queries.square().sum(dim=-1, keepdim=True) + means.square().sum(dim=-1)
    return 2 * queries @ means.T - squares


@dataclass(frozen=True)
class Prototypes:
    """The nearest class mean, in the features' own space or an embedding's."""

    embed: Embedding | None = None
    """None leaves the features as they are."""
    metric: Metric = "euclidean"
    name: str = "prototypes"

    @torch.no_grad()
    def adapt(self, support: Tensor, labels: Tensor) -> "NearestMean":
        """The means of ``support (S, F)`` by class.

        Raises:
            TrainingError: see :func:`benchmarks.methods.meta.learners.check_support`.
        """
        ways = check_support(support, labels)
        rows = self.embed(support) if self.embed is not None else support
        return NearestMean(
            class_means(rows, labels, ways), self.metric, self.embed, support.shape[1]
        )


@dataclass(frozen=True)
class NearestMean:
    """Classifies by the nearest of ``means (N, E)``."""

    means: Tensor
    metric: Metric
    embed: Embedding | None
    width: int
    """Features of a query row."""

    @torch.no_grad()
    def scores(self, queries: Tensor) -> Tensor:
        """``(Q, F)`` → ``(Q, N)``; see :func:`prototype_scores`."""
        check_queries(queries, self.width)
        rows = self.embed(queries) if self.embed is not None else queries
        return prototype_scores(rows, self.means, self.metric)


# A linear probe: multinomial logistic regression on frozen features.
#
# On unit vectors, with its L2 penalty, it is a baseline that many meta-learners do not beat
# (Tian et al., Rethinking few-shot image classification, 2020).


@dataclass(frozen=True)
class LinearProbe:
    """scikit-learn's ``LogisticRegression`` on the embedding's unit vectors."""

    embed: Embedding | None = None
    """None takes the features themselves."""
    c: float = 1.0
    """Inverse weight of the L2 penalty."""
    name: str = "linear probe"

    @torch.no_grad()
    def adapt(self, support: Tensor, labels: Tensor) -> "FittedProbe":
        """Fit ``support (S, F)``.

        Raises:
            TrainingError: see :func:`benchmarks.methods.meta.learners.check_support`.
        """
        check_support(support, labels)
        rows = F.normalize(self.embed(support) if self.embed is not None else support, dim=1)
        weight, bias = fit_probe(rows, labels, self.c)
        return FittedProbe(weight, bias, self.embed, support.shape[1])


@dataclass(frozen=True)
class FittedProbe:
    """``weight (N, E)``, ``bias (N,)`` on unit vectors."""

    weight: Tensor
    bias: Tensor
    embed: Embedding | None
    width: int
    """Features of a query row."""

    @torch.no_grad()
    def scores(self, queries: Tensor) -> Tensor:
        """``(Q, F)`` → ``(Q, N)`` logits."""
        check_queries(queries, self.width)
        rows = self.embed(queries) if self.embed is not None else queries
        return F.normalize(rows, dim=1) @ self.weight.T + self.bias


# Prototypes refined by the unlabelled products they will classify.
#
# A new category rarely comes alone: its unlabelled products are on the shelf too. Soft
# k-means (Ren et al., 2018) starts from the labelled examples' means and repeats::
#
#     p(n|q) = softmax_n(s · cos(z_q, c_n))
#     c_n    = (Σ_{i ∈ S_n} z_i + Σ_q p(n|q) z_q) / (|S_n| + Σ_q p(n|q))
#
# on unit vectors ``z``. This is transductive: a product's class depends on which others are
# asked about in the same call. It does not assume that the classes are of equal size.


@dataclass(frozen=True)
class RefinedPrototypes:
    """Cosine prototypes, moved by the queries of each call."""

    embed: Embedding | None = None
    """None leaves the features as they are."""
    sharpness: float = 10.0
    """s: how sure an unlabelled row is of its class."""
    rounds: int = 10
    name: str = "refined prototypes"

    @torch.no_grad()
    def adapt(self, support: Tensor, labels: Tensor) -> "RefinedMeans":
        """Keep the sums of ``support (S, F)`` by class.

        Raises:
            TrainingError: see :func:`benchmarks.methods.meta.learners.check_support`.
        """
        ways = check_support(support, labels)
        members = F.one_hot(labels, ways).to(support.dtype)
        rows = F.normalize(self.embed(support) if self.embed is not None else support, dim=1)
        return RefinedMeans(self, members.T @ rows, support.shape[1])


@dataclass(frozen=True)
class RefinedMeans:
    """``sums (N, E)`` of each class's unit vectors."""

    learner: RefinedPrototypes
    sums: Tensor
    width: int
    """Features of a query row."""

    @torch.no_grad()
    def scores(self, queries: Tensor) -> Tensor:
        """``(Q, F)``, all that is known of the classes → ``(Q, N)`` cosines."""
        check_queries(queries, self.width)
        embed = self.learner.embed
        rows = F.normalize(embed(queries) if embed is not None else queries, dim=1)
        scores = prototype_scores(rows, self.sums, "cosine")
        for _ in range(self.learner.rounds):
            share = (self.learner.sharpness * scores).softmax(dim=1)
            # The cosine does not ask for the length, so that sums do for means.
            scores = prototype_scores(rows, self.sums + share.T @ rows, "cosine")
        return scores


# Learners that read different features of the same rows, and the mean of what they say.
#
# Each member ``m`` gives probabilities ``p_m``; the ensemble's score is their geometric mean::
#
#     score_n = 1/M · Σ_m log p_m(n)
#
# (logarithmic opinion pool; Genest and Zidek, 1986). Members that err on different queries
# correct each other: a probe on pooled features, one on inner stages, a meta-learned network.


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
            TrainingError: see :func:`benchmarks.methods.meta.learners.check_support`, and what
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
