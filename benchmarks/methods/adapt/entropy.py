"""The entropy of predictions."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["entropy"]


def entropy(logits: Tensor) -> Tensor:
    """``H(x) = -Σ_k p_k log p_k`` with ``p = softmax(logits)``, in nats.

    Shape: ``(B, K)`` → ``(B,)``, each in 0 … log K.
    """
    log = F.log_softmax(logits, dim=1)
    return -(log.exp() * log).sum(dim=1)
