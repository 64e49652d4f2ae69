"""Fields of a click model: vocabularies, tables of inputs, embeddings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.ctr.impressions import Impressions
from newshelf.catalog.catalog import Catalog
from newshelf.evaluation.types import BoolArray, IntArray
from newshelf.files import StrictModel
from newshelf.nn.inputs import attribute_row, price_edges
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, AttributeInput


class Vocabulary:
    """The ``known`` ids of one field; every other id is 0."""

    def __init__(self, known: Iterable[str]) -> None:
        self._rows = {value: row for row, value in enumerate(dict.fromkeys(known), start=1)}
        self.size = len(self._rows) + 1
        """Rows of the table."""

    def rows(self, values: Iterable[str]) -> IntArray:
        """``(len(values),)`` in ``0 … size - 1``."""
        return np.array([self._rows.get(value, 0) for value in values], dtype=np.int64)


class Field(StrictModel):
    """One field of a row.

    A ``category`` holds one value, a ``bag`` any number of them, both as numbers of a table
    with ``size`` rows; ``dense`` holds ``size`` floats, such as a product's embedding.
    Value 0 of a category is the unknown one; in a bag, 0 is an empty place.
    """

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


_CONTEXT_SIZES = {"hour": 25, "weekday": 8, "month": 13}
"""Of the event, in UTC."""
_ITEM_SIDE = ("item", *ATTRIBUTE_COLUMNS, "embedding")
_PRICE_BINS = 16


class Inputs(NamedTuple):
    """Those of ``benchmarks.methods.ctr.fields.FieldEmbedding``."""

    categories: Tensor
    bags: Tensor
    dense: Tensor


@dataclass(frozen=True, eq=False)
class FieldTable:
    """The fields, and what each of the catalogue's items has in them."""

    fields: tuple[Field, ...]
    item_rows: IntArray
    """(n_items,) number of each item's id; 0 for an item without an interaction."""
    attributes: dict[str, IntArray]
    """By column: (n_items,) number of the value; 0 where absent or not seen in training."""
    embeddings: Tensor
    """(n_items, width) float32; (n_items, 0) without."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields, in their order."""
        return tuple(field.name for field in self.fields)

    @property
    def item_side(self) -> BoolArray:
        """(m,) True where a field depends on the item alone, False where it does not at all."""
        return np.isin(self.names, _ITEM_SIDE)

    def inputs(self, rows: Impressions) -> Inputs:
        """Inputs of the network for ``B`` rows."""
        size = len(rows)
        categories = [self._category(name, rows) for name in self._named("category")]
        # An item of the history that has no number is no more than an empty place.
        numbers = np.append(self.item_rows, 0)[rows.history]
        bags = [torch.from_numpy(numbers) for _ in self._named("bag")]
        dense = [self._dense(name, rows) for name in self._named("dense")]
        return Inputs(
            _stacked(categories, torch.zeros(size, 0, dtype=torch.int64)),
            _stacked(bags, torch.zeros(size, 0, 1, dtype=torch.int64)),
            torch.cat([torch.zeros(size, 0), *dense], dim=1),
        )

    def _named(self, kind: str) -> list[str]:
        return [field.name for field in self.fields if field.kind == kind]

    def _category(self, name: str, rows: Impressions) -> Tensor:
        if name == "user":
            return torch.from_numpy(rows.user)
        if name == "item":
            return torch.from_numpy(self.item_rows[rows.item])
        if name in _CONTEXT_SIZES:
            return torch.from_numpy(_context(name, rows.timestamp))
        return torch.from_numpy(self.attributes[name][rows.item])

    def _dense(self, name: str, rows: Impressions) -> Tensor:
        if name == "embedding":
            return self.embeddings[torch.from_numpy(rows.item)]
        return _mean(self.embeddings, torch.from_numpy(rows.history))


def field_table(
    catalog: Catalog,
    known: IntArray,
    names: Sequence[str],
    *,
    users: int = 1,
    embeddings: Tensor | None = None,
) -> FieldTable:
    """Return the fields of the catalogue's items.

    Args:
        catalog: its items.
        known: rows of the items with an interaction in the training.
        names: ``user``, ``item``, ``history`` (a bag of items), attributes, ``hour``, ``weekday``
            and ``month`` of the event, ``embedding`` of the product and ``history_embedding``,
            the mean of the history's.
        users: size of the users' vocabulary; 1 when nobody is known.
        embeddings: (n_items, width) float32, such as the encoder's 512; None for none.
    """
    identifiers = catalog.items["id"]
    vocabulary = Vocabulary(identifiers.iloc[known])
    attributes = _attributes(catalog, known, names)
    vectors = torch.zeros(len(catalog.items), 0) if embeddings is None else embeddings.float()
    sizes = {
        **dict.fromkeys(("item", "history"), vocabulary.size),
        **dict.fromkeys(("embedding", "history_embedding"), vectors.shape[1]),
        **{name: int(column.max()) + 1 for name, column in attributes.items()},
        **_CONTEXT_SIZES,
        "user": users,
    }
    return FieldTable(
        fields=tuple(Field(name=name, kind=_kind(name), size=sizes[name]) for name in names),
        item_rows=vocabulary.rows(identifiers),
        attributes=attributes,
        embeddings=vectors,
    )


def _kind(name: str) -> Literal["category", "bag", "dense"]:
    if name in ("embedding", "history_embedding"):
        return "dense"
    return "bag" if name == "history" else "category"


def _attributes(catalog: Catalog, known: IntArray, names: Sequence[str]) -> dict[str, IntArray]:
    """Return the named columns, their values in the training numbered from 1 on."""
    products = catalog.products()
    prices = [price for row in known if (price := products[row].price) is not None]
    # Enough buckets that two values of one shop rarely collide.
    spec = AttributeInput(buckets=1 << 24, price_edges=price_edges(prices, _PRICE_BINS))
    hashed = np.array([attribute_row(product, spec) for product in products], dtype=np.int64)
    columns = {}
    for name, column in zip(ATTRIBUTE_COLUMNS, hashed.T, strict=True):
        if name in names:
            values = np.unique(column[known])
            values = values[values > 0]
            place = np.searchsorted(values, column).clip(max=len(values) - 1)
            columns[name] = np.where(values[place] == column, place + 1, 0)
    return columns


def _context(name: str, timestamp: IntArray) -> IntArray:
    """1 + hour, weekday (Monday 0) or month (January 0)."""
    if name == "hour":
        return timestamp // 3600 % 24 + 1
    if name == "weekday":
        # The first day of the epoch was a Thursday.
        return (timestamp // 86400 + 3) % 7 + 1
    months: IntArray = timestamp.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    return months % 12 + 1


def _mean(embeddings: Tensor, history: Tensor) -> Tensor:
    """(B, width): the mean of each history's embeddings, 0 for an empty one."""
    present = history >= 0
    weights = present / present.sum(dim=1, keepdim=True).clamp(min=1)
    return F.embedding_bag(
        history.clamp(min=0), embeddings, mode="sum", per_sample_weights=weights.to(embeddings)
    )


def _stacked(columns: Sequence[Tensor], nothing: Tensor) -> Tensor:
    return torch.stack(list(columns), dim=1) if columns else nothing
