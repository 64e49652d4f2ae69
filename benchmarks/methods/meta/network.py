"""The small network on frozen features that meta-learning trains."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FewShotNet", "ResidualAdapter"]


class ResidualAdapter(nn.Module):
    """``z = s · x̂``, with ``x̂`` the unit vector of ``x + B · gelu(A · x)``.

    ``B`` begins at zero, so that training starts from the frozen features themselves
    (Houlsby et al., adapters, 2019). ``s`` is a learned length, the inverse temperature of
    distances and cosines.

    Shape: ``(…, features)`` → ``(…, features)``.
    """

    def __init__(self, features: int, hidden: int = 256, scale: float = 4.0) -> None:
        super().__init__()
        self.down = nn.Linear(features, hidden)
        self.up = nn.Linear(hidden, features)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Embed rows of features."""
        moved: Tensor = features + self.up(F.gelu(self.down(features)))
        return F.normalize(moved, dim=-1) * self.log_scale.exp()


class FewShotNet(nn.Module):
    """Adapter and an N-way linear head: ``(R, features)`` → ``(R, ways)`` logits."""

    def __init__(self, adapter: ResidualAdapter, ways: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.head = nn.Linear(adapter.up.out_features, ways)
        # Every class starts alike: which one is called 0 is drawn anew in every episode.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.adapter(features))
        return logits
