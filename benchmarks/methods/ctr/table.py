"""From a catalogue to the fields of a click model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.methods.ctr.fields import Field
from benchmarks.methods.ctr.impressions import Impressions
from benchmarks.methods.ctr.vocabulary import Vocabulary
from newshelf.catalog import Catalog
from newshelf.errors import TrainingError
from newshelf.evaluation.types import BoolArray, IntArray
from newshelf.nn.inputs import attribute_row, price_edges
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, AttributeInput

__all__ = ["CONTEXT", "FIELDS", "FieldTable", "Inputs", "field_table"]

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
        """What the network takes, for ``B`` rows."""
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
    """Columns with a value in the training, numbered anew, and the sizes of their tables."""
    products = catalog.products()
    prices = [price for row in known if (price := products[row].price) is not None]
    # So many buckets that two values of one shop hardly meet.
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
