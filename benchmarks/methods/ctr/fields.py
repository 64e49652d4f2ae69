"""Fields of a click model: what is known of a row, each as one vector of the same width."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

__all__ = ["Field", "FieldEmbedding"]


class Field(BaseModel):
    """One field of a row.

    A ``category`` holds one value, a ``bag`` any number of them, both as numbers of a table
    with ``size`` rows; ``dense`` holds ``size`` floats, such as a product's embedding.
    Value 0 of a category is the unknown one; in a bag, 0 is an empty place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["category", "bag", "dense"]
    size: PositiveInt


class FieldEmbedding(nn.Module):
    """Every field's vector, and its share of the linear part.

    A category is looked up, a bag is the mean over its values (0 when it has none), a dense
    field is projected without a bias, so that a row of zeros, something absent, stays zero.

    Args:
        fields: in the order of the inputs' columns within each kind.
        width: of a vector.
        init_std: standard deviation of the vectors at the start; the linear part begins at 0.
    """

    def __init__(self, fields: Sequence[Field], width: int, init_std: float) -> None:
        super().__init__()
        categories, bags, dense = (
            [field.size for field in fields if field.kind == kind]
            for kind in ("category", "bag", "dense")
        )
        self.names = tuple(
            field.name
            for kind in ("category", "bag", "dense")
            for field in fields
            if field.kind == kind
        )
        """In the order of the vectors: categories, bags, dense fields."""
        self.dense_sizes = dense
        # All tables are one: a single look-up, at the place where each field's rows begin.
        starts = torch.tensor([0, *categories, *bags], dtype=torch.int64).cumsum(0)[:-1]
        self.category_starts: Tensor
        self.bag_starts: Tensor
        self.register_buffer("category_starts", starts[: len(categories)])
        self.register_buffer("bag_starts", starts[len(categories) :].unsqueeze(1))
        rows = max(1, sum(categories) + sum(bags))
        self.vectors = nn.Embedding(rows, width)
        self.weights = nn.Embedding(rows, 1)
        self.projections = nn.ModuleList(nn.Linear(size, width, bias=False) for size in dense)
        self.dense_weights = nn.ModuleList(nn.Linear(size, 1, bias=False) for size in dense)
        nn.init.normal_(self.vectors.weight, std=init_std)
        nn.init.zeros_(self.weights.weight)
        for weight in self.dense_weights.parameters():
            nn.init.zeros_(weight)

    def forward(self, categories: Tensor, bags: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Look up a batch of ``B`` rows.

        Args:
            categories: ``(B, C)`` int64, each below its field's size.
            bags: ``(B, M, L)`` int64, likewise; 0 is an empty place.
            dense: ``(B, sum of sizes)`` float32, field after field.

        Returns:
            ``vectors (B, m, width)`` and ``weights (B, m)``, for the ``m`` ``names``.
        """
        rows = categories + self.category_starts
        vectors = [self.vectors(rows)]
        weights = [self.weights(rows).squeeze(-1)]
        mask = (bags > 0).unsqueeze(-1).to(dense.dtype)
        count = mask.sum(dim=2).clamp(min=1.0)
        rows = bags + self.bag_starts
        vectors.append((self.vectors(rows) * mask).sum(dim=2) / count)
        weights.append(((self.weights(rows) * mask).sum(dim=2) / count).squeeze(-1))
        if self.dense_sizes:
            parts = dense.split(self.dense_sizes, dim=1)
            pairs = zip(self.projections, self.dense_weights, parts, strict=True)
            for projection, weight, part in pairs:
                vectors.append(projection(part).unsqueeze(1))
                weights.append(weight(part))
        return torch.cat(vectors, dim=1), torch.cat(weights, dim=1)
