"""The adversary of DANN and CDAN: which domain is a row from?"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.adapt.reversal import reverse_gradient

__all__ = ["Discriminator"]


class Discriminator(nn.Module):
    """``d(x) = sigmoid(v · relu(W x + b) + c)``, trained to say 1 for the source, 0 for the target.

    Shape: ``(B_s, width)`` and ``(B_t, width)`` → ``()``.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(
        self, source: Tensor, target: Tensor, scale: float, weight: Tensor | None = None
    ) -> Tensor:
        """Binary cross-entropy, each domain weighing half, its gradient reversed by ``scale``.

        Args:
            source: ``(B_s, width)``.
            target: ``(B_t, width)``.
            scale: λ of the reversal.
            weight: ``(B_s + B_t,)`` ≥ 0, of the rows within their domain; None for equal.
        """
        rows = reverse_gradient(torch.cat([source, target]), scale)
        logits = self.layers(rows).squeeze(1)
        if weight is None:
            weight = torch.ones_like(logits)
        is_source, is_target = logits[: len(source)], logits[len(source) :]
        of_source, of_target = weight[: len(source)], weight[len(source) :]
        # log sigmoid(x) = -softplus(-x); log (1 - sigmoid(x)) = -softplus(x)
        source_loss = (of_source * F.softplus(-is_source)).sum() / of_source.sum()
        target_loss = (of_target * F.softplus(is_target)).sum() / of_target.sum()
        return (source_loss + target_loss) / 2
