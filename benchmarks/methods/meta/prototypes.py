"""Prototypes: a class is the mean of its few examples (Snell et al., 2017)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.methods.meta.learner import Embedding, check_queries, check_support

__all__ = ["Metric", "Prototypes", "class_means", "prototype_scores"]

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
            TrainingError: see :func:`benchmarks.methods.meta.learner.check_support`.
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
