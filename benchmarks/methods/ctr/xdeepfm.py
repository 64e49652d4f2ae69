"""xDeepFM: linear part, Compressed Interaction Network and deep part over fields."""

from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from pydantic import Field as Bounded
from torch import Tensor, nn

from benchmarks.methods.ctr.cin import CIN, Activation
from benchmarks.methods.ctr.fields import Field, FieldEmbedding

__all__ = ["XDeepFM", "XDeepFMSpec"]


class XDeepFMSpec(BaseModel):
    """The network's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: Annotated[tuple[Field, ...], Bounded(min_length=1)]
    width: PositiveInt = 16
    """D, of every field's vector."""
    cin: tuple[PositiveInt, ...] = (32, 32)
    """Maps of each layer; empty leaves the CIN out."""
    cin_activation: Activation = "identity"
    deep: tuple[PositiveInt, ...] = (64, 32)
    """Units of each layer; empty leaves the deep part out."""
    dropout: Annotated[float, Bounded(ge=0, lt=1)] = 0.0
    """In the deep part."""
    init_std: Annotated[float, Bounded(gt=0)] = 0.01

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"these fields are named twice: {', '.join(twice)}")
        return self


class XDeepFM(nn.Module):
    """A row's logit (Lian et al., KDD 2018, arXiv:1803.05170, equation 9).

    ::

        logit = Σ_f w_f(a_f)  +  w_cin · CIN(e)  +  w_deep · MLP(flatten(e))  +  b

    ``a_f`` is what the row has in field ``f`` and ``e (m, D)`` are the fields' vectors.
    ``sigmoid(logit)`` is the probability when trained with log-loss; trained with a ranking
    loss only the order of the logits means something.
    """

    def __init__(self, spec: XDeepFMSpec) -> None:
        super().__init__()
        self.spec = spec
        fields = len(spec.fields)
        self.fields = FieldEmbedding(spec.fields, spec.width, spec.init_std)
        self.bias = nn.Parameter(torch.zeros(1))
        self.cin: CIN | None = None
        if spec.cin:
            self.cin = CIN(fields, spec.cin, spec.cin_activation)
            self.cin_weight = nn.Linear(self.cin.width, 1, bias=False)
        self.deep: nn.Sequential | None = None
        if spec.deep:
            self.deep = _deep(fields * spec.width, spec.deep, spec.dropout)
            self.deep_weight = nn.Linear(spec.deep[-1], 1, bias=False)

    def forward(self, categories: Tensor, bags: Tensor, dense: Tensor) -> Tensor:
        """``(B,)`` logits; the inputs are those of ``FieldEmbedding``."""
        vectors, weights = self.fields(categories, bags, dense)
        return self.interact(vectors, weights)

    def interact(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """``(B,)`` logits of rows that were looked up before.

        A ranker looks a history up once and every product once, and puts them together.

        Args:
            vectors: ``(B, m, D)``.
            weights: ``(B, m)``.
        """
        logit = weights.sum(dim=1) + self.bias
        if self.cin is not None:
            logit = logit + self.cin_weight(self.cin(vectors)).squeeze(1)
        if self.deep is not None:
            logit = logit + self.deep_weight(self.deep(vectors.flatten(1))).squeeze(1)
        return logit


def _deep(width: int, units: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((width, *units[:-1]), units, strict=True):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
