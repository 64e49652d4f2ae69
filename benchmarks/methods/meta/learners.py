"""Few-shot learners on frozen features: prototypes, linear probes, ensembles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.training.few_shot import fit_probe

FewShotLearner = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Learns N classes from a few rows of each, and classifies others.

(support ``(S, F)``, labels ``(S,)`` int64 in 0..N-1, queries ``(Q, F)``) → ``(Q, N)`` scores, of
which the highest is the predicted class.
"""
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
    """The nearest class mean (Snell et al., 2017)."""

    metric: Metric = "euclidean"

    @torch.no_grad()
    def __call__(self, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """See ``FewShotLearner`` and ``prototype_scores``."""
        means = class_means(support, labels, int(labels.max()) + 1)
        return prototype_scores(queries, means, self.metric)


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on unit vectors.

    With its L2 penalty, it is a baseline that many meta-learners do not beat (Tian et al.,
    Rethinking few-shot image classification, 2020).
    """

    c: float = 1.0
    """Inverse weight of the L2 penalty."""

    @torch.no_grad()
    def __call__(self, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """See ``FewShotLearner``; the scores are logits."""
        weight, bias = fit_probe(F.normalize(support, dim=1), labels, self.c)
        return F.normalize(queries, dim=1) @ weight.T + bias


@dataclass(frozen=True)
class RefinedPrototypes:
    """Cosine prototypes, moved by the unlabelled queries of a call.

    Soft k-means (Ren et al., 2018) starts from the labelled examples' means and repeats::

        p(n|q) = softmax_n(s · cos(z_q, c_n))
        c_n    = (Σ_{i ∈ S_n} z_i + Σ_q p(n|q) z_q) / (|S_n| + Σ_q p(n|q))

    on unit vectors ``z``. This is transductive: a product's class depends on which others are
    asked about in the same call. It does not assume that the classes are of equal size.
    """

    sharpness: float = 10.0
    """s: how sure an unlabelled row is of its class."""
    rounds: int = 10

    @torch.no_grad()
    def __call__(self, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """See ``FewShotLearner``; the scores are cosines."""
        sums = F.one_hot(labels).to(support.dtype).T @ F.normalize(support, dim=1)
        rows = F.normalize(queries, dim=1)
        scores = prototype_scores(rows, sums, "cosine")
        for _ in range(self.rounds):
            share = (self.sharpness * scores).softmax(dim=1)
            # The cosine does not ask for the length, so that sums do for means.
            scores = prototype_scores(rows, sums + share.T @ rows, "cosine")
        return scores


@dataclass(frozen=True)
class Ensemble:
    """The geometric mean of learners that read different columns of the features.

    Each member ``m`` gives probabilities ``p_m``::

        score_n = 1/M · Σ_m log p_m(n)

    (logarithmic opinion pool; Genest and Zidek, 1986). Members that err on different queries
    correct each other: a probe on pooled features, one on inner stages, a meta-learned network.
    """

    members: Sequence[tuple[FewShotLearner, slice]]

    @torch.no_grad()
    def __call__(self, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """See ``FewShotLearner``; the scores are means of log-probabilities."""
        logs = [
            learner(support[:, columns], labels, queries[:, columns]).log_softmax(dim=1)
            for learner, columns in self.members
        ]
        return torch.stack(logs).mean(dim=0)
