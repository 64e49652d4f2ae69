"""The checks of the items table."""

from pathlib import Path

import numpy as np
import pandas as pd

from newshelf.catalog.checked import CheckedTable, listed
from newshelf.catalog.columns import parse_price, parse_seconds, parse_text, say_seconds
from newshelf.catalog.pictures import PictureFolder
from newshelf.catalog.schema import ITEM_COLUMNS, Availability
from newshelf.errors import CatalogError

__all__ = ["check_items"]

_TEXTS = tuple(name for name in ITEM_COLUMNS if name not in {"price", "created_at"})


def check_items(table: CheckedTable, folder: Path) -> pd.DataFrame:
    """Check every item and report what is wrong to ``table``.

    Returns:
        All of ``ITEM_COLUMNS``, then the others. Texts are ``str`` or None (object),
        ``price`` float64 with NaN, ``created_at`` Int64 with NA.

    Raises:
        CatalogError: a column that cannot be missing is missing.
    """
    table.require(["id"])
    if "title" not in table.frame and "image_link" not in table.frame:
        raise CatalogError(
            f"{table.file} has neither a column 'title' nor 'image_link'; it has"
            f" {', '.join(map(str, table.frame.columns))}"
        )
    table.look_for_misspelt(ITEM_COLUMNS)
    for name in ITEM_COLUMNS:
        if name not in table.frame:
            table.frame[name] = None
    texts = {name: parse_text(table.frame[name]) for name in _TEXTS}
    _check_ids(table, texts["id"])
    texts["image_link"] = _check_pictures(table, texts, PictureFolder(folder))
    texts["availability"] = _check_availability(table, texts["availability"])
    columns = {name: _or_none(text) for name, text in texts.items()}
    columns["price"] = _check_price(table)
    columns["created_at"] = _check_created(table)
    return table.kept({name: columns[name] for name in ITEM_COLUMNS})


def _or_none(text: pd.Series) -> pd.Series:
    cells = text.astype(object)
    return cells.where(cells.notna(), None)


def _check_ids(table: CheckedTable, ids: pd.Series) -> None:
    missing = ids.isna()
    table.reject(missing, "id", "the id is missing")
    repeated = ids.duplicated() & ~missing
    table.reject(repeated, "id", lambda cell: f"{str(cell)!r} is the id of an earlier row too")


def _check_pictures(
    table: CheckedTable, texts: dict[str, pd.Series], pictures: PictureFolder
) -> pd.Series:
    links = texts["image_link"]
    untitled = texts["title"].isna().to_numpy()
    table.reject(links.isna() & untitled, "title", "there is neither a title nor an image_link")
    reasons = {
        link: reason for link in links.dropna().unique() if (reason := pictures.problem(link))
    }
    unusable = links.isin(reasons).to_numpy()
    # The frame's own cell may be bytes or a number; the reasons go by text.
    table.frame["image_link"] = links
    table.mention(unusable & ~untitled, "image_link", reasons.__getitem__)
    table.reject(
        unusable & untitled, "image_link", lambda link: f"{reasons[link]}, and there is no title"
    )
    return links.where(~unusable)


def _check_availability(table: CheckedTable, availability: pd.Series) -> pd.Series:
    # A Merchant feed writes "in stock" as well as "in_stock".
    folded = availability.str.strip().str.lower().str.replace(r"[\s-]+", "_", regex=True)
    unknown = folded.notna() & ~folded.isin(list(Availability))
    table.reject(
        unknown, "availability", lambda cell: f"{str(cell)!r} is not {listed(Availability)}"
    )
    return folded


def _check_price(table: CheckedTable) -> pd.Series:
    (amount, unreadable), currency = parse_price(table.frame["price"])
    table.reject(unreadable, "price", _say_price)
    common = currency.mode()
    if len(common):
        other = currency.notna() & (currency != common[0])
        table.reject(
            other, "price", lambda cell: f"{str(cell)!r}: most of the prices are in {common[0]}"
        )
    return amount


def _say_price(cell: object) -> str:
    text = str(cell).strip()
    if text.startswith("-"):
        return f"{text!r} is negative"
    if "," in text:
        return f"{text!r} is not a number: write it with a decimal point, such as 1299.50"
    return f"{text!r} is not a number: write the amount, such as 19.99"


def _check_created(table: CheckedTable) -> pd.Series:
    values, unreadable = parse_seconds(table.frame["created_at"])
    table.reject(unreadable, "created_at", say_seconds)
    return values.where(~np.asarray(unreadable))
