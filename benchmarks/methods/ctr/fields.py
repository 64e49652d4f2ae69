"""Fields of a click model: vocabularies, tables of inputs, embeddings."""

import zlib
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
from newshelf.errors import TrainingError
from newshelf.evaluation.types import BoolArray, IntArray
from newshelf.files import StrictModel
from newshelf.nn.inputs import attribute_row, price_edges
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, AttributeInput


class Vocabulary:
    """The known ids of one field.

    An id that was not known is 0. The known ones have a row each while there are enough;
    beyond that they share rows by their hash (Weinberger et al., 2009), so that a shop of
    any size fits the table. A new id never falls on a known one's row.

    Args:
        known: ids of the training.
        limit: rows of the table, the unknown one's among them; at least 2.
    """

    def __init__(self, known: Iterable[str], limit: int = 1 << 18) -> None:
        distinct = dict.fromkeys(known)
        if len(distinct) < limit:
            self._rows = {value: row for row, value in enumerate(distinct, start=1)}
        else:
            self._rows = {value: zlib.crc32(value.encode()) % (limit - 1) + 1 for value in distinct}
        self.size = min(len(distinct) + 1, limit)
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


CONTEXT = ("hour", "weekday", "month")
"""Of the event, in UTC."""
FIELDS = (
    "user",
    "item",
    *ATTRIBUTE_COLUMNS,
    *CONTEXT,
    "history",
    "embedding",
    "history_embedding",
)
"""What a table can have, in its order: ``history`` is a bag of items, ``embedding`` the
product's and ``history_embedding`` the mean of the history's; the others are categories."""
_ITEM_SIDE = ("item", *ATTRIBUTE_COLUMNS, "embedding")
_CONTEXT_SIZES = {"hour": 25, "weekday": 8, "month": 13}


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
        if name in CONTEXT:
            return torch.from_numpy(_context(name, rows.timestamp))
        return torch.from_numpy(self.attributes[name][rows.item])

    def _dense(self, name: str, rows: Impressions) -> Tensor:
        if name == "embedding":
            return self.embeddings[torch.from_numpy(rows.item)]
        return _mean(self.embeddings, torch.from_numpy(rows.history))


def field_table(
    catalog: Catalog,
    known: IntArray,
    *,
    users: int = 1,
    embeddings: Tensor | None = None,
    timed: bool = True,
    names: Sequence[str] | None = None,
    price_bins: int = 16,
    id_rows: int = 1 << 18,
) -> FieldTable:
    """The fields that the catalogue can fill, or those named.

    Attributes are the product's: type, brand, colours, materials, size and a binned price.
    One that every item of the training shares tells nothing and is left out, unless named.

    Args:
        catalog: its items.
        known: rows of the items with an interaction in the training.
        users: size of the users' vocabulary; 1 when nobody is known.
        embeddings: (n_items, width) float32, such as the encoder's 512; None for none.
        timed: whether the events have a time.
        names: out of ``FIELDS``; None takes all that there are.
        price_bins: of equal count.
        id_rows: limit of the items' vocabulary.

    Raises:
        TrainingError: a name is unknown or cannot be filled, or the embeddings are not finite
            or not those of this catalogue.
    """
    rows = len(catalog.items)
    _check_embeddings(embeddings, catalog)
    identifiers = catalog.items["id"]
    vocabulary = Vocabulary(identifiers.iloc[known], id_rows)
    attributes, sizes = _attributes(catalog, known, price_bins)
    sizes |= {"item": vocabulary.size, "history": vocabulary.size}
    if users > 1:
        sizes["user"] = users
    if timed:
        sizes |= _CONTEXT_SIZES
    if embeddings is not None:
        sizes |= dict.fromkeys(("embedding", "history_embedding"), embeddings.shape[1])
    if names is None:
        same = [name for name, column in attributes.items() if len(np.unique(column[known])) == 1]
        chosen = [name for name in FIELDS if name in sizes and name not in same]
    else:
        chosen = _chosen(names, sizes)
    return FieldTable(
        fields=tuple(Field(name=name, kind=_kind(name), size=sizes[name]) for name in chosen),
        item_rows=vocabulary.rows(identifiers),
        attributes={name: attributes[name] for name in chosen if name in attributes},
        embeddings=torch.zeros(rows, 0) if embeddings is None else embeddings.float(),
    )


def _kind(name: str) -> Literal["category", "bag", "dense"]:
    if name in ("embedding", "history_embedding"):
        return "dense"
    return "bag" if name == "history" else "category"


def _chosen(names: Sequence[str], sizes: dict[str, int]) -> list[str]:
    unknown = [name for name in names if name not in FIELDS]
    if unknown:
        raise TrainingError(
            f"unknown field {', '.join(unknown)}: the fields are {', '.join(FIELDS)}"
        )
    empty = [name for name in names if name not in sizes]
    if empty:
        raise TrainingError(
            f"field {', '.join(empty)} cannot be filled from this catalogue: leave it out, or "
            f"add the column; there are {', '.join(name for name in FIELDS if name in sizes)}"
        )
    return [name for name in FIELDS if name in names]


def _check_embeddings(embeddings: Tensor | None, catalog: Catalog) -> None:
    if embeddings is None:
        return
    rows = len(catalog.items)
    if embeddings.ndim != 2 or len(embeddings) != rows:  # noqa: PLR2004
        raise TrainingError(
            f"the embeddings are {tuple(embeddings.shape)}, but {catalog.name} has {rows} items: "
            "compute them from this catalogue"
        )
    bad = torch.nonzero(~embeddings.isfinite().all(dim=1)).flatten()
    if len(bad):
        raise TrainingError(
            f"the embeddings of {len(bad)} items are not finite, the first of them "
            f"{catalog.items['id'].iloc[int(bad[0])]}: compute them again, with zeros where a "
            "product has neither picture nor text"
        )


def _attributes(
    catalog: Catalog, known: IntArray, price_bins: int
) -> tuple[dict[str, IntArray], dict[str, int]]:
    """Columns with a value in the training, renumbered, and the sizes of their tables."""
    products = catalog.products()
    prices = [price for row in known if (price := products[row].price) is not None]
    # Enough buckets that two values of one shop rarely collide.
    spec = AttributeInput(buckets=1 << 24, price_edges=price_edges(prices, price_bins))
    hashed = np.array([attribute_row(product, spec) for product in products], dtype=np.int64)
    columns, sizes = {}, {}
    for name, column in zip(ATTRIBUTE_COLUMNS, hashed.T, strict=True):
        values = np.unique(column[known])
        values = values[values > 0]
        if len(values) == 0:
            continue
        place = np.searchsorted(values, column).clip(max=len(values) - 1)
        columns[name] = np.where(values[place] == column, place + 1, 0)
        sizes[name] = len(values) + 1
    return columns, sizes


def _context(name: str, timestamp: IntArray) -> IntArray:
    """1 + hour, weekday (Monday 0) or month (January 0); 0 without a time."""
    moment = timestamp.astype("datetime64[s]")
    if name == "hour":
        value = timestamp // 3600 % 24
    elif name == "weekday":
        # The first day of the epoch was a Thursday.
        value = (timestamp // 86400 + 3) % 7
    else:
        value = moment.astype("datetime64[M]").astype(np.int64) % 12
    return np.where(timestamp < 0, 0, value + 1).astype(np.int64)


def _mean(embeddings: Tensor, history: Tensor) -> Tensor:
    """(B, width): the mean of each history's embeddings, 0 for an empty one."""
    present = history >= 0
    weights = present / present.sum(dim=1, keepdim=True).clamp(min=1)
    return F.embedding_bag(
        history.clamp(min=0), embeddings, mode="sum", per_sample_weights=weights.to(embeddings)
    )


def _stacked(columns: Sequence[Tensor], nothing: Tensor) -> Tensor:
    return torch.stack(list(columns), dim=1) if columns else nothing
