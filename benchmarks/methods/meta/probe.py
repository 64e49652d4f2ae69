"""A linear probe: multinomial logistic regression on frozen features.

On unit vectors, with its L2 penalty, it is a baseline that many meta-learners do not beat
(Tian et al., Rethinking few-shot image classification, 2020).
"""

from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from benchmarks.methods.meta.learner import Embedding, check_queries, check_support

__all__ = ["LinearProbe"]

_MAX_ITERATIONS = 1000


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
            TrainingError: see :func:`benchmarks.methods.meta.learner.check_support`.
        """
        ways = check_support(support, labels)
        rows = F.normalize(self.embed(support) if self.embed is not None else support, dim=1)
        # The penalty keeps the weights in the span of the rows: S coordinates do for E.
        axes, coordinates = torch.linalg.qr(rows.T)
        model = LogisticRegression(C=self.c, max_iter=_MAX_ITERATIONS)
        model.fit(coordinates.T.cpu().numpy(), labels.cpu().numpy())
        weight = torch.from_numpy(model.coef_).to(support) @ axes.T
        bias = torch.from_numpy(model.intercept_).to(support)
        if ways == 2:  # noqa: PLR2004 (one row stands for two classes)
            weight = torch.cat([-weight, weight]) / 2
            bias = torch.cat([-bias, bias]) / 2
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
