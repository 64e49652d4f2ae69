"""Mapping of shop systems' columns, event names and exports (several rows a product) to ours."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from newshelf.catalog.report import Mapped, Problem, RawTable, quoted
from newshelf.catalog.schema import BASKET_COLUMNS, EVENT_COLUMNS, ITEM_COLUMNS, EventType
from newshelf.errors import CatalogError

_OURS: dict[str, tuple[str, ...]] = {
    "items": ITEM_COLUMNS,
    "events": EVENT_COLUMNS,
    "baskets": BASKET_COLUMNS,
}
_ALIASES = {
    "items": {
        "id": "item_id product_id handle url_handle",
        "title": "name item_name product_name product_title",
        "description": "body_(html) body_html product_description short_description summary",
        "product_type": "product_category categories category category_l1 item_category",
        "brand": "vendor item_brand brands",
        "price": "variant_price regular_price",
        "image_link": "image_src product_image_url image_url image images",
        "availability": "in_stock?",
        "created_at": "creation_timestamp",
    },
    "events": {
        "user_id": "user_pseudo_id",
        "item_id": "product_id",
        "event_type": "event_name event",
        "timestamp": "event_timestamp",
    },
    "baskets": {"basket_id": "order_id transaction_id", "item_id": "product_id"},
}
"""Names in Shopify, WooCommerce, Merchant, Amazon Personalize and GA4, best first."""
_FILLED = frozenset({"description", "user_id"})
"""Columns whose blank cells are filled from the next alias."""
_EVENT_WORDS = {
    EventType.VIEW: "view_item viewed product_view product_viewed detail_page_view view_content",
    EventType.CLICK: "select_item clicked product_clicked",
    EventType.FAVOURITE: "favorite favourited favorited wishlist like add_to_wishlist"
    " added_to_wishlist product_added_to_wishlist",
    EventType.CART: "add_to_cart added_to_cart addtocart add_to_basket product_added",
    EventType.PURCHASE: "purchased transaction order order_completed",
}
_EVENTS = {
    word: str(event) for event, words in _EVENT_WORDS.items() for word in (event, *words.split())
}
_KNOWN = {*ITEM_COLUMNS, *EVENT_COLUMNS, *BASKET_COLUMNS}.union(
    *(words.split() for aliases in _ALIASES.values() for words in aliases.values())
)
_IDS = ("id", "item_id", "user_id", "basket_id")
_SINGLE = frozenset({*_IDS, "event_type", "timestamp", "price", "availability", "created_at"})
_SEPARATORS = {"product_type": " > ", "categories": " > ", "title": " ", "description": " "}
_ROUNDED = r"[+-]?\d[.,]\d+[eE]\+\d+"
"""A long id as spreadsheets show it."""
_EXACT_FLOAT = 2**53
_OPTIONS = {"color": "color", "colour": "color", "size": "size", "material": "material"}
_NOT_FOR_SALE = ("draft", "archived", "unlisted", "false", "0", "-1")


def _key(name: str) -> str:
    """Return the normalised name of a column or event: ``g:Image Link`` → ``image_link``."""
    plain = re.sub(r"[\s\-]+", "_", name.strip("\ufeff\u00a0 \t\r\n\"'").casefold())
    return plain.removeprefix("g:")


def is_known(name: str) -> bool:
    """Return whether a column's name is canonical, or of a known shop system."""
    return _key(name) in _KNOWN


def join_values(name: str, cell: Any) -> str | None:
    """Return a cell that may be nested as text; the values of a list are joined.

    The message of a ``ValueError`` does not have the cell, which may be a picture.
    """
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, dict) and isinstance(path := cell.get("path"), str):
        return path  # a picture as Hugging Face has it
    if isinstance(cell, dict | tuple):
        raise ValueError("the column holds objects and is left out: give a text, or a list of them")
    if isinstance(cell, bytes):
        raise ValueError("the column holds bytes and is left out: of a picture, give the path")
    if not isinstance(cell, list):
        return str(cell)
    if any(isinstance(value, list) for value in cell):
        raise ValueError("the column holds lists of lists and is left out: give a list of texts")
    values = [text for value in cell if (text := join_values(name, value))]
    ours = _key(name)
    if ours in _SINGLE and len(values) > 1:
        raise ValueError("the column holds lists and is left out: give one value in each row")
    return _SEPARATORS.get(ours, ",").join(values[:1] if "image" in ours else values)


def apply_names(table: RawTable, kind: str) -> RawTable:
    """Map the columns and words of a table of ``kind`` to canonical ones; keep unknown ones."""
    columns = {_key(name): name for name in reversed(table.frame.columns)}
    table = _rename(table, kind, columns)
    keys = columns.keys()
    if kind == "events":
        table = _event_words(table)
    elif kind == "items" and {"id", "type", "sku", "name"} <= keys:
        table = _woocommerce(table, columns)
    elif kind == "items" and {"handle", "url_handle"} & keys and "option1_value" in keys:
        table = _shopify(table, columns)
    return _without_rounded_ids(table)


def _rename(table: RawTable, kind: str, columns: dict[str, str]) -> RawTable:
    frame, mapped = table.frame, []
    for ours in _OURS[kind]:
        same = [name for name in frame.columns if _key(name) == ours]
        if ours in same:
            same = [ours]
        elif len(same) > 1:
            raise CatalogError(f"{table.file} has {' and '.join(map(repr, same))}: keep one")
        aliases = _ALIASES[kind].get(ours, "").split()
        found = same + [columns[alias] for alias in aliases if columns.get(alias) in frame]
        if not found:
            continue
        used = found if ours in _FILLED else found[:1]
        column = frame[used[0]]
        for name in used[1:]:
            column = column.where(_present(column), frame[name])
        frame = frame.drop(columns=used[1:]).rename(columns={used[0]: ours})
        frame = frame.assign(**{ours: column})
        mapped += [Mapped(name, ours) for name in used if name != ours]
    return replace(table, frame=frame, mapped=tuple(mapped))


def _present(column: pd.Series) -> pd.Series:
    return column.notna() & (column.astype("str").str.strip() != "")


def _event_words(table: RawTable) -> RawTable:
    if "event_type" not in table.frame:
        return table
    codes, words = pd.factorize(table.frame["event_type"].astype("str"))
    ours = {word: _EVENTS.get(_key(word), word) for word in words}
    new = np.array([*ours.values(), None], dtype=object)[codes]
    source = {ours: found for found, ours in table.mapped}.get("event_type", "event_type")
    mapped = [Mapped(f"{source}: {word}", event) for word, event in ours.items() if word != event]
    if not mapped:
        return table
    frame = table.frame.assign(event_type=pd.Series(new, dtype="str"))
    return replace(table, frame=frame, mapped=(*table.mapped, *mapped))


def _without_rounded_ids(table: RawTable) -> RawTable:
    """Leave out rows whose id a float or spreadsheet rounded: several ids became one."""
    kept = np.ones(len(table.frame), dtype=bool)
    problems = []
    for name in table.frame.columns.intersection(_IDS):
        column = table.frame[name]
        if pd.api.types.is_float_dtype(column.dtype):
            rounded = column.abs() >= _EXACT_FLOAT
        elif pd.api.types.is_string_dtype(column.dtype):
            rounded = column.str.fullmatch(_ROUNDED).fillna(False).astype(bool)
        else:
            continue
        for place in np.flatnonzero(rounded):
            cell = quoted(column.iloc[place])
            reason = f"{cell} has lost digits: it was saved as a number; save ids as text"
            problems.append(Problem(table.file, int(table.rows[place]), name, reason))
        kept &= ~rounded.to_numpy(dtype=bool)
    if not problems:
        return table
    frame = table.frame[kept].reset_index(drop=True)
    problems = [*table.problems, *problems]
    return replace(table, frame=frame, rows=table.rows[kept], problems=tuple(problems))


def _shopify(table: RawTable, columns: dict[str, str]) -> RawTable:
    """Fold rows of variants and further pictures into one row per handle."""
    frame, cells = _cells(table, columns)
    ids = frame["id"]
    stock = cells("variant_inventory_qty", "inventory_quantity")
    if stock.notna().any():
        tracker = cells("variant_inventory_tracker", "inventory_tracker")
        policy = cells("variant_inventory_policy", "continue_selling_when_out_of_stock")
        untracked = tracker.isna() & cells("price").notna() & tracker.notna().any()
        sold = (
            (pd.to_numeric(stock, errors="coerce") > 0)
            | (policy.str.lower() == "continue")
            | untracked
        )
        words = {True: "in_stock", False: "out_of_stock"}
        frame["availability"] = sold.groupby(ids).transform("any").map(words)
        table = replace(table, mapped=(*table.mapped, Mapped(str(stock.name), "availability")))
    frame["product_type"] = cells("product_type").fillna(cells("type"))
    options = [
        (cells(f"option{n}_name").groupby(ids).transform("first"), cells(f"option{n}_value"))
        for n in (1, 2, 3)
    ]
    published = (cells("status"), cells("published", "published_on_online_store"))
    return _fold(table, "Shopify", frame, ids, options, published)


def _woocommerce(table: RawTable, columns: dict[str, str]) -> RawTable:
    """Fold variations into their products, whose blank cells they fill."""
    frame, cells = _cells(table, columns)
    variation = cells("type").str.contains("variation").fillna(False).astype(bool)
    parent, sku = cells("parent"), cells("sku")
    by_sku = dict(zip(sku[sku.notna()], frame["id"][sku.notna()], strict=True))
    owner = parent.str.extract(r"^id:(\d+)$")[0].fillna(parent.map(by_sku).astype("str"))
    ids = frame["id"].where(~variation, owner)
    for name, pattern in (("image_link", r"\s*,.*"), ("product_type", r"(?<!\\),.*")):
        frame[name] = cells(name).str.replace(pattern, "", regex=True)
    frame["description"] = cells("description").str.replace(r"\n", "\n", regex=False)
    frame["price"] = cells("sale_price").fillna(cells("price"))
    options = [
        (cells(f"attribute_{n}_name"), cells(f"attribute_{n}_value(s)")) for n in range(1, 10)
    ]
    order = np.argsort(variation.to_numpy(), kind="stable")
    return _fold(table, "WooCommerce", frame, ids, options, [cells("published")], order)


def _cells(
    table: RawTable, columns: dict[str, str]
) -> tuple[pd.DataFrame, Callable[..., pd.Series]]:
    """Return the frame with blanks as NaN, and a lookup of columns, all NaN if absent."""
    frame = table.frame.astype("str")
    frame = frame.where(frame.apply(_present))

    def cells(*keys: str) -> pd.Series:
        found = [name for key in keys for name in (key, columns.get(key)) if name in frame]
        return frame[found[0]] if found else pd.Series(np.nan, frame.index, dtype="str")

    return frame, cells


def _fold(
    table: RawTable,
    system: str,
    frame: pd.DataFrame,
    ids: pd.Series,
    options: Iterable[tuple[pd.Series, pd.Series]],
    published: Iterable[pd.Series],
    order: Any = slice(None),
) -> RawTable:
    """Return one row per id with the first non-blank cell of each column, in ``order``.

    Colours, sizes and materials are collected from ``options``, pairs of names and values;
    ``published`` columns tell whether a product is for sale.
    """
    mapped = dict.fromkeys(table.mapped)
    for names, values in options:
        kinds = names.str.strip().str.lower().map(_OPTIONS)
        for ours in kinds.dropna().unique():
            rows = (kinds == ours) & values.notna()
            new = ids.map(values[rows].groupby(ids[rows]).agg(_distinct))
            mapped[Mapped(f"{values.name}: {names[kinds == ours].iloc[0]}", ours)] = None
            frame[ours] = frame[ours].fillna(new) if ours in frame else new
    hidden = np.any([words.str.lower().isin(_NOT_FOR_SALE) for words in published], axis=0)
    bad = table.rows[ids.isna()].tolist()
    lost = [Problem(table.file, row, "id", f"no product of the {system} export") for row in bad]
    frame = frame.assign(id=ids, _row=table.rows, _hidden=hidden).iloc[order]
    links = frame.get("image_link", frame["id"])  # without pictures, one per product
    further = links.groupby(frame["id"]).nunique().clip(lower=1).sub(1).sum()
    frame = frame.groupby("id", sort=False, as_index=False).first()
    if (hidden := frame["_hidden"].astype(bool)).any():
        stock = frame.get("availability", pd.Series(None, frame.index, dtype="str"))
        frame["availability"] = stock.mask(hidden, "out_of_stock")
    note = (
        f"{table.file}: {len(ids):,} rows of a {system} export are {len(frame):,} products;"
        f" further pictures left out: {int(further):,};"
        f" not published, so out of stock: {int(hidden.sum()):,}"
    )
    return replace(
        table,
        frame=frame.drop(columns=["_row", "_hidden"]),
        rows=frame["_row"].to_numpy(np.int64),
        mapped=tuple(mapped),
        rows_read=len(frame) + len(lost) + table.rows_read - len(ids),
        problems=(*table.problems, *lost),
        notes=(*table.notes, note),
    )


def _distinct(cells: pd.Series) -> str:
    return ",".join(dict.fromkeys(part.strip() for cell in cells for part in cell.split(",")))
