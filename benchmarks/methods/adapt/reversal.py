"""The gradient reversal layer and its schedule (Ganin et al., JMLR 2016)."""

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["ramp", "reverse_gradient"]

_STEEPNESS = 10.0


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


def reverse_gradient(features: Tensor, scale: float) -> Tensor:
    """``R(x) = x`` forward, ``dR/dx = -λ I`` backward.

    Put between features and a domain discriminator: it learns to tell the domains apart,
    while the features learn to be told apart less.

    Args:
        features: of any shape.
        scale: λ ≥ 0; 0 stops the gradient.
    """
    reversed_features: Tensor = _Reversal.apply(features, scale)
    return reversed_features


def ramp(progress: float) -> float:
    """``λ = 2 / (1 + exp(-10 p)) - 1``: from 0 to 1 as training goes from p = 0 to 1.

    A discriminator that has learned nothing yet would only add noise to the features.
    """
    return 2.0 / (1.0 + math.exp(-_STEEPNESS * progress)) - 1.0
