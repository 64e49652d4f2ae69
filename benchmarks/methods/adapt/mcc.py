"""Minimum class confusion (MCC: Jin et al., ECCV 2020)."""

import torch
from torch import Tensor

from benchmarks.methods.adapt.base import AdaptationLoss
from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.entropy import entropy

__all__ = ["MCC", "class_confusion"]

_TEMPERATURE = 2.5


class MCC(AdaptationLoss):
    """``L = CE(source) + confusion(target)``: pairs of classes should not share a row."""

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:
        """``loss``, ``classification`` and ``confusion``."""
        _, _, classification = self.classify(source)
        _, logits = self.network(target.features)
        confusion = class_confusion(logits)
        return {
            "loss": classification + confusion,
            "classification": classification,
            "confusion": confusion,
        }


def class_confusion(logits: Tensor, temperature: float = _TEMPERATURE) -> Tensor:
    """``1 - mean_j C_jj / Σ_k C_jk`` with ``C = Σ_i w_i p_i p_iᵀ``: 0 … 1 - 1/K.

    ``p = softmax(logits / T)``, and ``w_i ∝ 1 + exp(-H(p_i))``, so that sure rows weigh
    more. C_jk says how much probability classes j and k have on the same rows; each class
    counts alike however many rows it has, so the domains' class shares may differ.

    Args:
        logits: ``(B, K)``.
        temperature: T; above 1 keeps sure rows from hiding the others.
    """
    scaled = logits / temperature
    probability = scaled.softmax(dim=1)
    weight = 1.0 + torch.exp(-entropy(scaled).detach())
    weight = weight / weight.sum() * len(logits)
    correlation = (probability * weight.unsqueeze(1)).T @ probability
    # A class that no row is thought to be of has a row of nearly zeros.
    shares = correlation / correlation.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return 1.0 - shares.diagonal().mean()
