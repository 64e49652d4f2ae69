"""The Compressed Interaction Network of xDeepFM: crosses of fields, vector by vector."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["CIN", "Activation"]

Activation = Literal["identity", "relu"]


class CIN(nn.Module):
    """Explicit interactions of bounded degree (Lian et al., KDD 2018, arXiv:1803.05170, §3.1).

    With fields ``x⁰_1 … x⁰_m`` of width ``D``, layer ``k`` has maps ``h = 1 … H_k``::

        x^k_h = σ( Σ_i Σ_j W^{k,h}_ij (x^{k-1}_i ∘ x⁰_j) + b^k_h )        (equation 6)
        p^k_h = Σ_d x^k_{h,d}                                             (equation 7)

    so layer ``k`` holds the crosses of degree ``k + 1``. The paper's σ is the identity,
    and it has no ``b``; a bias and ReLU are what its public code uses.

    With ``split``, half of each layer's maps but the last one's are pooled, and the other
    half feed the next layer, as in that code.

    Shape: ``(B, m, D)`` → ``(B, width)``, where ``width`` counts the pooled maps.

    Args:
        fields: m.
        maps: ``H_1 … H_K``; with ``split``, all but the last one even.
        activation: σ.
        split: see above.

    Raises:
        ValueError: no layer, or an odd number of maps to be split.
    """

    def __init__(
        self,
        fields: int,
        maps: Sequence[int],
        activation: Activation = "identity",
        *,
        split: bool = True,
    ) -> None:
        super().__init__()
        if not maps:
            raise ValueError("maps is empty: a CIN has at least one layer")
        if split and any(count % 2 for count in maps[:-1]):
            raise ValueError(f"maps is {tuple(maps)}: only the last layer may be odd with split")
        self.maps = tuple(maps)
        self.activation: Activation = activation
        self.split = split
        passed = [fields, *(count // 2 if split else count for count in maps[:-1])]
        # The double sum over i and j is a linear map of all the pairs.
        self.layers = nn.ModuleList(
            nn.Linear(previous * fields, count)
            for previous, count in zip(passed, maps, strict=True)
        )
        self.width = sum(passed[1:]) + maps[-1] if split else sum(maps)

    def forward(self, fields: Tensor) -> Tensor:
        """``(B, m, D)`` float → ``(B, width)``: the pooled maps of all layers."""
        # One place d after another, so that a layer is a single product of matrices.
        first = fields.transpose(1, 2)
        previous = first
        pooled = []
        for number, layer in enumerate(self.layers):
            pairs = (previous.unsqueeze(3) * first.unsqueeze(2)).flatten(2)
            found = layer(pairs)
            if self.activation == "relu":
                found = found.relu()
            if self.split and number + 1 < len(self.layers):
                previous, found = found.chunk(2, dim=2)
            else:
                previous = found
            pooled.append(found.sum(dim=1))
        return torch.cat(pooled, dim=1)
