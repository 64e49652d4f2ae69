"""xDeepFM: the compressed interaction network, the model, the ranker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.methods.ctr.fields import Field, FieldEmbedding, FieldTable
from benchmarks.methods.ctr.impressions import Impressions
from newshelf.evaluation.types import FloatArray, IntArray

Activation = Literal["identity", "relu"]


class CIN(nn.Module):
    """Explicit interactions of bounded degree (Lian et al., KDD 2018, arXiv:1803.05170, §3.1).

    With fields ``x⁰_1 … x⁰_m`` of width ``D``, layer ``k`` has maps ``h = 1 … H_k``::

        x^k_h = σ( Σ_i Σ_j W^{k,h}_ij (x^{k-1}_i ∘ x⁰_j) + b^k_h )        (equation 6)
        p^k_h = Σ_d x^k_{h,d}                                             (equation 7)

    so layer ``k`` holds the crosses of degree ``k + 1``. The paper's σ is the identity,
    and it has no ``b``; a bias and ReLU are what its public code uses. As in that code, half of
    each layer's maps but the last one's are pooled, and the other half feed the next layer.

    Shape: ``(B, m, D)`` → ``(B, width)``, where ``width`` counts the pooled maps.

    Args:
        fields: m.
        maps: ``H_1 … H_K``, all but the last one even.
        activation: σ.
    """

    def __init__(
        self, fields: int, maps: Sequence[int], activation: Activation = "identity"
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        passed = [fields, *(count // 2 for count in maps[:-1])]
        # The double sum over i and j is a linear map of all the pairs.
        self.layers = nn.ModuleList(
            nn.Linear(previous * fields, count)
            for previous, count in zip(passed, maps, strict=True)
        )
        self.width = sum(passed[1:]) + maps[-1]

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
            if number + 1 < len(self.layers):
                previous, found = found.chunk(2, dim=2)
            pooled.append(found.sum(dim=1))
        return torch.cat(pooled, dim=1)


@dataclass(frozen=True)
class XDeepFMSettings:
    """The network's shape and how it is trained."""

    loss: Literal["log", "pairwise"] = "pairwise"
    width: int = 16
    """D, of every field's vector."""
    cin: tuple[int, ...] = (32, 32)
    """Maps of each layer; empty leaves the CIN out."""
    cin_activation: Activation = "identity"
    deep: tuple[int, ...] = (64, 32)
    """Units of each layer; empty leaves the deep part out."""
    init_std: float = 0.01
    epochs: int = 5
    batch_size: int = 1024
    """Positives, or labelled rows when negatives are not sampled."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    negatives: int = 2
    """Sampled for each positive again in every epoch."""
    max_rows: int | None = None
    """Positives (or labelled rows) of an epoch, drawn again for each; None takes all."""
    item_dropout: float = 0.1
    """Share of the rows whose item is read as unknown."""


class XDeepFM(nn.Module):
    """A row's logit (Lian et al., KDD 2018, arXiv:1803.05170, equation 9).

    ::

        logit = Σ_f w_f(a_f)  +  w_cin · CIN(e)  +  w_deep · MLP(flatten(e))  +  b

    ``a_f`` is what the row has in field ``f`` and ``e (m, D)`` are the fields' vectors.
    ``sigmoid(logit)`` is the probability when trained with log-loss; trained with a ranking
    loss only the order of the logits means something.
    """

    def __init__(self, fields: Sequence[Field], settings: XDeepFMSettings) -> None:
        super().__init__()
        self.fields = FieldEmbedding(fields, settings.width, settings.init_std)
        self.bias = nn.Parameter(torch.zeros(1))
        self.cin: CIN | None = None
        if settings.cin:
            self.cin = CIN(len(fields), settings.cin, settings.cin_activation)
            self.cin_weight = nn.Linear(self.cin.width, 1, bias=False)
        self.deep: nn.Sequential | None = None
        if settings.deep:
            self.deep = _deep(len(fields) * settings.width, settings.deep)
            self.deep_weight = nn.Linear(settings.deep[-1], 1, bias=False)

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


def _deep(width: int, units: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((width, *units[:-1]), units, strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


class XDeepFMRanker:
    """Scores the whole catalogue for a history, by an unknown user at one moment.

    Every product is looked up once and every history once; only their interaction is
    computed for each pair.

    Args:
        model: in ``eval`` mode.
        table: the one it was trained with.
        max_history: items of a history that are read, the latest ones.
        timestamp: epoch seconds of the question.
    """

    name = "xDeepFM"

    def __init__(self, model: XDeepFM, table: FieldTable, max_history: int, timestamp: int) -> None:
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
        return torch.stack(rows).numpy()

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
