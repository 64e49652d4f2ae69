"""xDeepFM: the compressed interaction network, the model, the ranker."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field as Bounded
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchmarks.methods.ctr.fields import Field, FieldEmbedding, FieldTable
from benchmarks.methods.ctr.impressions import Impressions
from newshelf.evaluation.types import FloatArray, IntArray
from newshelf.files import StrictModel

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


class XDeepFMSpec(StrictModel):
    """The network's shape."""

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


class XDeepFMRanker:
    """Scores the whole catalogue for a history, by an unknown user at one moment.

    Every product is looked up once and every history once; only their interaction is
    computed for each pair.

    Args:
        model: in ``eval`` mode.
        table: the one it was trained with.
        max_history: items of a history that are read, the latest ones.
        timestamp: epoch seconds of the question; -1 when the data have no time.
        name: what the report calls it.
    """

    def __init__(
        self,
        model: XDeepFM,
        table: FieldTable,
        max_history: int,
        timestamp: int = -1,
        name: str = "xDeepFM",
    ) -> None:
        self.name = name
        self._model = model
        self._table = table
        self._max_history = max_history
        self._timestamp = timestamp
        self._item_side = torch.from_numpy(table.item_side)
        items = np.arange(len(table.item_rows))
        nobody = np.full((len(items), 1), -1)
        self._items = self._looked_up(self._asked(items, nobody))

    @torch.inference_mode()
    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """``(len(histories), n_items)`` float32 logits."""
        window = np.full((len(histories), self._max_history), -1, dtype=np.int64)
        for row, history in enumerate(histories):
            latest = history[::-1][: self._max_history]
            window[row, : len(latest)] = latest
        vectors, weights = self._looked_up(self._asked(np.zeros(len(histories), np.int64), window))
        rows = []
        for vector, weight in zip(vectors, weights, strict=True):
            rows.append(
                self._model.interact(
                    torch.where(self._item_side.unsqueeze(1), self._items[0], vector),
                    torch.where(self._item_side, self._items[1], weight),
                )
            )
        scores: FloatArray = torch.stack(rows).numpy()
        return scores

    @torch.inference_mode()
    def _looked_up(self, rows: Impressions) -> tuple[Tensor, Tensor]:
        looked_up: tuple[Tensor, Tensor] = self._model.fields(*self._table.inputs(rows))
        return looked_up

    def _asked(self, items: IntArray, history: IntArray) -> Impressions:
        count = len(items)
        return Impressions(
            sequence=np.zeros(count, dtype=np.int64),
            user=np.zeros(count, dtype=np.int64),
            item=items,
            history=history,
            timestamp=np.full(count, self._timestamp, dtype=np.int64),
            label=np.zeros(count, dtype=np.float32),
        )
