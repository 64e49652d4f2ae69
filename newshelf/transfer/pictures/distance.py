"""L2-SP: stay near to the weights one started from."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["SourceDistance"]


class SourceDistance(nn.Module):
    """``Σ ||w - w_source||²`` over the given parameters (Li et al., ICML 2018).

    Added to a loss as ``λ · distance``. Weight decay pulls to zero, where nothing is known;
    this pulls to what the source taught. ``w_source`` is a copy made here, kept in the
    state so that a resumed run pulls to the same place.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        # In a tuple: the parameters belong to the tower, and must not be listed twice.
        self._now = tuple(parameters)
        for at, parameter in enumerate(self._now):
            self.register_buffer(f"source_{at}", parameter.detach().clone())

    def forward(self) -> Tensor:
        """Scalar, of those that are being trained; 0 without any."""
        total = torch.zeros(())
        for at, parameter in enumerate(self._now):
            if parameter.requires_grad:
                total = total + (parameter - self.get_buffer(f"source_{at}")).square().sum()
        return total
