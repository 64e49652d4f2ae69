"""Names and words of shop systems → ours, and their exports' rows → one row a product."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from newshelf.catalog.report import Problem
from newshelf.catalog.schema import BASKET_COLUMNS, EVENT_COLUMNS, ITEM_COLUMNS, EventType
from newshelf.catalog.table import Mapped, Table
from newshelf.errors import CatalogError

__all__ = ["apply_names", "is_known", "join_values"]

_OURS: dict[str, tuple[str, ...]] = {
    "items": ITEM_COLUMNS,
    "events": EVENT_COLUMNS,
    "baskets": BASKET_COLUMNS,
}
_ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "items": {
        "id": ("item_id", "product_id", "handle", "url_handle"),
        "title": ("name", "item_name", "product_name", "product_title"),
        "description": (
            "body_(html)", "body_html", "product_description", "short_description", "summary",
        ),
        "product_type": (
            "product_category", "categories", "category", "category_l1", "item_category",
        ),
        "brand": ("vendor", "item_brand", "brands"),
        "price": ("variant_price", "regular_price"),
        "image_link": (
            "image_src", "product_image_url", "image_url", "image", "images",
        ),
        "availability": ("in_stock?",),
        "created_at": ("creation_timestamp",),
    },
    "events": {
        "user_id": ("user_pseudo_id",),
        "item_id": ("product_id",),
        "event_type": ("event_name", "event"),
        "timestamp": ("event_timestamp",),
    },
    "baskets": {
        "basket_id": ("order_id", "transaction_id"),
        "item_id": ("product_id",),
    },
}  # fmt: skip
"""Shopify, WooCommerce, Merchant, Amazon Personalize and GA4, the best first."""
_FILLED = frozenset({"description", "user_id"})
"""Where the next alias fills what is blank in the first."""

_WORDS = {
    EventType.VIEW: "view_item viewed product_view product_viewed detail_page_view view_content",
    EventType.CLICK: "select_item clicked product_clicked",
    EventType.FAVOURITE: (
        "favorite favourited favorited wishlist add_to_wishlist added_to_wishlist"
        " product_added_to_wishlist like"
    ),
    EventType.CART: "add_to_cart added_to_cart addtocart add_to_basket product_added",
    EventType.PURCHASE: "purchased transaction order order_completed",
}
_EVENT_WORDS = {
    word: str(event) for event, words in _WORDS.items() for word in (event, *words.split())
}
_KNOWN = frozenset(
    name
    for kind, ours in _OURS.items()
    for name in (*ours, *(alias for aliases in _ALIASES[kind].values() for alias in aliases))
)
_IDS = ("id", "item_id", "user_id", "basket_id")
_SINGLE = frozenset({*_IDS, "event_type", "timestamp", "price", "availability", "created_at"})
_SEPARATORS = {"product_type": " > ", "categories": " > ", "title": " ", "description": " "}
_LOST_DIGITS = r"[+-]?\d[.,]\d+[eE]\+\d+"
_EXACT_FLOAT = 2**53
_OPTIONS = {"color": "color", "colour": "color", "size": "size", "material": "material"}
_NOT_FOR_SALE = ("draft", "archived", "unlisted", "false", "0", "-1")


def _key(name: str) -> str:
    """A column's or an event's name without its spelling: ``g:Image Link`` → ``image_link``."""
    plain = re.sub(r"[\s\-]+", "_", name.strip("\ufeff\u00a0 \t\r\n\"'").casefold())
    return plain.removeprefix("g:")


def is_known(name: str) -> bool:
    """Whether a column's name is one of ours, or of a shop system that we know."""
    return _key(name) in _KNOWN


def join_values(name: str, cell: Any) -> str | None:
    """Write a cell that may be nested as text: a list's values are joined.

    Raises:
        ValueError: why the column ``name`` cannot be read; without the cell, which may be
            a picture.
    """
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, dict) and isinstance(path := cell.get("path"), str):
        return path  # a picture as Hugging Face has it
    if isinstance(cell, dict | tuple):
        raise ValueError("holds objects: give one text, or a list of them")
    if isinstance(cell, bytes):
        raise ValueError("holds bytes: give text, and for a picture the path of its file")
    if not isinstance(cell, list):
        return str(cell)
    if any(isinstance(value, list) for value in cell):
        raise ValueError("holds lists of lists: give a list of texts")
    values = [text for value in cell if (text := join_values(name, value))]
    ours = _key(name)
    if ours in _SINGLE and len(values) > 1:
        raise ValueError("holds lists: give one value in each row")
    if "image" in ours:
        return values[0] if values else None
    return _SEPARATORS.get(ours, ",").join(values)


def apply_names(table: Table, kind: str) -> Table:
    """Give the columns and words of ``table`` our names; what is unknown stays as it is.

    Args:
        table: as read; its columns have the file's names.
        kind: ``items``, ``events`` or ``baskets``.

    Raises:
        CatalogError: two columns are spellings of one name.
    """
    columns = {_key(str(name)): str(name) for name in reversed(table.frame.columns)}
    table = _rename(table, kind, columns)
    if (
        kind == "items"
        and ({"handle", "url_handle"} & columns.keys())
        and ({"variant_price", "variant_sku", "option1_value"} & columns.keys())
    ):
        table = _shopify(table, columns)
    elif kind == "items" and {"id", "type", "sku", "name"} <= columns.keys():
        table = _woocommerce(table, columns)
    elif kind == "events":
        table = _event_words(table)
    return _without_lost_ids(table)


def _rename(table: Table, kind: str, columns: dict[str, str]) -> Table:
    frame = table.frame.copy(deep=False)
    frame.columns = frame.columns.map(str)
    mapped = []
    for ours in _OURS[kind]:
        same = [name for name in frame.columns if _key(name) == ours]
        if len(same) > 1 and ours not in same:
            raise CatalogError(f"{table.file} has {' and '.join(map(repr, same))}: keep one")
        found = [ours] if ours in same else same
        found += [columns[alias] for alias in _ALIASES[kind].get(ours, ()) if alias in columns]
        if not found or found[0] not in frame:
            continue
        column = frame[found[0]]
        used = found if ours in _FILLED else found[:1]
        for name in used[1:]:
            column = column.where(_present(column), frame[name])
        frame = frame.drop(columns=[name for name in used[1:] if name != ours])
        frame = frame.rename(columns={found[0]: ours}).assign(**{ours: column})
        mapped += [Mapped(name, ours) for name in used if name != ours]
    return replace(table, frame=frame, mapped=(*table.mapped, *mapped))


def _present(column: pd.Series) -> pd.Series:
    return column.notna() & (column.astype("str").str.strip() != "")


def _event_words(table: Table) -> Table:
    frame, mapped = table.frame.copy(deep=False), list(table.mapped)
    sources = {ours: found for found, ours in mapped}
    if "event_type" in frame:
        codes, words = pd.factorize(frame["event_type"].astype("str"))
        ours = {word: _EVENT_WORDS.get(_key(word), word) for word in words}
        changed = [word for word in words if ours[word] != word]
        if changed:
            new = np.array([*map(ours.__getitem__, words), None], dtype=object)
            frame["event_type"] = pd.Series(new[codes], index=frame.index, dtype="str")
        source = sources.get("event_type", "event_type")
        mapped += [Mapped(f"{source}: {word}", ours[word]) for word in changed]
    return replace(table, frame=frame, mapped=tuple(mapped))


def _without_lost_ids(table: Table) -> Table:
    """Leave out rows whose id a float or a spreadsheet has rounded: several ids became one."""
    bad = np.zeros(len(table.frame), dtype=bool)
    problems = []
    for name in table.frame.columns.intersection(_IDS):
        column = table.frame[name]
        if pd.api.types.is_float_dtype(column.dtype):
            lost = column.abs() >= _EXACT_FLOAT
        elif pd.api.types.is_string_dtype(column.dtype):
            lost = column.str.fullmatch(_LOST_DIGITS).fillna(False).astype(bool)
        else:
            continue
        for place in np.flatnonzero(lost):
            cell = str(column.iloc[place])
            reason = f"{cell!r} has lost digits: it was saved as a number; save ids as text"
            problems.append(Problem(table.file, int(table.rows[place]), name, reason))
        bad |= lost.to_numpy(dtype=bool)
    return table if not problems else _keep(table, ~bad, problems)


def _keep(table: Table, kept: Any, problems: Iterable[Problem]) -> Table:
    return replace(
        table,
        frame=table.frame[kept].reset_index(drop=True),
        rows=table.rows[kept],
        problems=(*table.problems, *problems),
    )


def _shopify(table: Table, columns: dict[str, str]) -> Table:
    """One row a variant or further picture → one a product; a handle's rows belong together."""
    frame, cells = _cells(table, columns)
    ids = frame["id"]
    stock = cells("variant_inventory_qty", "inventory_quantity")
    if stock.notna().any():
        tracker = cells("variant_inventory_tracker", "inventory_tracker")
        policy = cells("variant_inventory_policy", "continue_selling_when_out_of_stock")
        untracked = tracker.isna() & cells("price").notna() & tracker.notna().any()
        sold = (pd.to_numeric(stock, errors="coerce") > 0) | (policy == "continue") | untracked
        frame["availability"] = _stock(sold.groupby(ids).transform("any"))
    hidden = _hidden(cells("status")) | _hidden(cells("published", "published_on_online_store"))
    kind = frame.get("product_type", cells(""))
    frame["product_type"] = kind.where(kind.notna(), cells("type"))
    names = [
        (cells(f"option{n}_name").groupby(ids).transform("first"), cells(f"option{n}_value"))
        for n in (1, 2, 3)
    ]
    return _fold(table, "Shopify", _options(frame, ids, names), ids, hidden)


def _woocommerce(table: Table, columns: dict[str, str]) -> Table:
    """Variations → what their products lack; they are no products of their own."""
    frame, cells = _cells(table, columns)
    variation = cells("type").str.contains("variation").fillna(False).astype(bool)
    parent, sku = cells("parent"), cells("sku")
    by_sku = pd.Series(frame["id"].to_numpy(), index=sku).loc[lambda found: found.index.notna()]
    owner = parent.map(by_sku[~by_sku.index.duplicated()].to_dict())
    owner = owner.where(owner.notna(), parent.str.extract(r"^id:(\d+)$")[0])
    ids = frame["id"].where(~variation, owner)
    for name, pattern in (("image_link", r"\s*,.*"), ("product_type", r"(?<!\\),.*")):
        if name in frame:
            frame[name] = frame[name].str.replace(pattern, "", regex=True)
    if "description" in frame:
        frame["description"] = frame["description"].str.replace(r"\n", "\n", regex=False)
    if "availability" in frame:
        words = {"1": "in_stock", "0": "out_of_stock"}
        frame["availability"] = frame["availability"].replace(words)
    sale = cells("sale_price")
    frame["price"] = sale.where(sale.notna(), cells("price"))
    names = [(cells(f"attribute_{n}_name"), cells(f"attribute_{n}_value(s)")) for n in range(1, 10)]
    order = np.argsort(variation.to_numpy(), kind="stable")
    return _fold(
        table, "WooCommerce", _options(frame, ids, names), ids, _hidden(cells("published")), order
    )


def _cells(table: Table, columns: dict[str, str]) -> tuple[pd.DataFrame, Callable[..., pd.Series]]:
    """The frame with blanks as NaN, and its columns by key, all NaN where there is none."""
    frame = table.frame.astype("str")
    frame = frame.where(frame.apply(_present))

    def cells(*keys: str) -> pd.Series:
        found = [name for key in keys if (name := columns.get(key, key)) in frame]
        return frame[found[0]] if found else pd.Series(np.nan, frame.index, dtype="str")

    return frame, cells


def _stock(sold: pd.Series) -> pd.Series:
    return sold.map({True: "in_stock", False: "out_of_stock"})


def _hidden(words: pd.Series) -> pd.Series:
    return words.str.lower().isin(_NOT_FOR_SALE)


def _options(
    frame: pd.DataFrame, ids: pd.Series, options: Sequence[tuple[pd.Series, pd.Series]]
) -> pd.DataFrame:
    """Fill colour, size and material from columns of names and of values."""
    for names, values in options:
        kinds = names.str.strip().str.lower().map(_OPTIONS)
        for ours in kinds.dropna().unique():
            rows = (kinds == ours) & values.notna()
            joined = values[rows].groupby(ids[rows]).agg(_distinct)
            new = ids.map(joined)
            frame[ours] = frame[ours].where(frame[ours].notna(), new) if ours in frame else new
    return frame


def _distinct(cells: pd.Series) -> str:
    return ",".join(dict.fromkeys(part.strip() for cell in cells for part in cell.split(",")))


def _fold(
    table: Table,
    system: str,
    frame: pd.DataFrame,
    ids: pd.Series,
    hidden: pd.Series,
    order: Any = slice(None),
) -> Table:
    """One row per id: of each column the first cell that is there."""
    lost = [
        Problem(table.file, int(table.rows[place]), "id", f"no product of the {system} export")
        for place in np.flatnonzero(ids.isna())
    ]
    frame = frame.assign(id=ids, _row=table.rows, _hidden=hidden).iloc[order]
    pictures = frame.groupby("id")["image_link"].nunique() if "image_link" in frame else None
    frame = frame.groupby("id", sort=False, as_index=False).first()
    if frame["_hidden"].any():
        stock = frame.get("availability", pd.Series(None, frame.index, dtype="str"))
        frame["availability"] = stock.mask(frame["_hidden"], "out_of_stock")
    further = 0 if pictures is None else int((pictures - 1).clip(lower=0).sum())
    note = f"{table.file}: {len(ids):,} rows of a {system} export are {len(frame):,} products"
    if further:
        note += f"; {further:,} further pictures are left out"
    if hidden_count := int(frame["_hidden"].sum()):
        note += f"; {hidden_count:,} not published count as out of stock"
    return replace(
        table,
        frame=frame.drop(columns=["_row", "_hidden"]),
        rows=frame["_row"].to_numpy(np.int64),
        rows_read=len(frame) + len(lost) + table.rows_read - len(ids),
        problems=(*table.problems, *lost),
        notes=(*table.notes, note),
    )
