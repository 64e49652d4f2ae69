"""Two classifiers as one: what only one of them is sure of counts less than what both say."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["geometric_mean"]


def geometric_mean(logits: Sequence[Tensor]) -> Tensor:
    """Log-probabilities of the classifiers' normalised geometric mean.

    ``log p(c) = 1/K · Σ_k log softmax(logits_k)_c - log Z``, a logarithmic opinion pool
    (Genest and Zidek, 1986). A probe of the frozen tower and a tuned tower err on different
    pictures, so their mean errs on fewer.

    Args:
        logits: K of ``(n, classes)`` each.

    Returns:
        ``(n, classes)``; the exponentials of a row sum to 1.
    """
    each = torch.stack([one.float().log_softmax(dim=1) for one in logits])
    return each.mean(dim=0).log_softmax(dim=1)
