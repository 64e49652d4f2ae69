"""Maximum mean discrepancy with several kernels (Gretton et al., 2012; Long et al., 2015)."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["kernels", "mk_mmd"]

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths, relative to the mean squared distance of the two batches."""


def kernels(rows: Tensor, factors: Sequence[float] = FACTORS) -> Tensor:
    """``K_ij = mean_f exp(-|x_i - x_j|² / (f b))``, ``b`` the mean of ``|x_i - x_j|²``, i ≠ j.

    ``b`` is a constant to the gradient.

    Shape: ``(N, D)`` → ``(N, N)``, each in 0 … 1.
    """
    # Not torch.cdist: the gradient of its root is not finite where two rows are equal.
    square = (rows * rows).sum(dim=1)
    distance = (square.unsqueeze(1) + square - 2 * rows @ rows.T).clamp(min=0.0)
    count = len(rows) * (len(rows) - 1)
    bandwidth = (distance.detach().sum() / max(count, 1)).clamp(min=1e-12)
    total = torch.zeros_like(distance)
    for factor in factors:
        total = total + torch.exp(-distance / (factor * bandwidth))
    return total / len(factors)


def mk_mmd(source: Tensor, target: Tensor, factors: Sequence[float] = FACTORS) -> Tensor:
    """``MMD² = mean k(s, s') + mean k(t, t') - 2 mean k(s, t)``.

    The biased estimator, so never below 0; 0 where the two batches are the same rows.

    Shape: ``(N, D)`` and ``(M, D)`` float32 → ``()``.
    """
    return discrepancy(kernels(torch.cat([source, target]), factors), len(source))


def discrepancy(matrix: Tensor, sources: int) -> Tensor:
    """MMD² from a kernel matrix ``(N + M, N + M)`` whose first N rows are the source's."""
    within = matrix[:sources, :sources].mean() + matrix[sources:, sources:].mean()
    return within - 2 * matrix[:sources, sources:].mean()
