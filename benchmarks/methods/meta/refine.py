"""Prototypes refined by the unlabelled products they will classify.

A new category rarely comes alone: its unlabelled products are on the shelf too. Soft
k-means (Ren et al., 2018) starts from the labelled examples' means and repeats::

    p(n|q) = softmax_n(s · cos(z_q, c_n))
    c_n    = (Σ_{i ∈ S_n} z_i + Σ_q p(n|q) z_q) / (|S_n| + Σ_q p(n|q))

on unit vectors ``z``. This is transductive: a product's class depends on which others are
asked about in the same call. It does not assume that the classes are of equal size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.methods.meta.learner import Embedding, check_queries, check_support
from benchmarks.methods.meta.prototypes import prototype_scores

__all__ = ["RefinedPrototypes"]


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
            TrainingError: see :func:`benchmarks.methods.meta.learner.check_support`.
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
