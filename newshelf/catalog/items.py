"""The checks of the items table."""

from pathlib import Path

import pandas as pd

from newshelf.catalog.checked import CheckedTable
from newshelf.catalog.clean import clean_text
from newshelf.catalog.columns import (
    Parsed,
    parse_availability,
    parse_distinct,
    parse_id,
    parse_seconds,
    parse_text,
)
from newshelf.catalog.pictures import PictureFolder
from newshelf.catalog.prices import parse_price
from newshelf.catalog.report import quoted
from newshelf.catalog.schema import ITEM_COLUMNS
from newshelf.errors import CatalogError

__all__ = ["check_items"]

_TEXTS = ("title", "description", "product_type", "brand", "color", "material", "size")

_STYLE = "style"
"""No column of the schema, but read as a text where a shop has it."""


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
    texts = {name: _read_text(table.frame[name]) for name in _TEXTS}
    texts["image_link"] = parse_text(table.frame["image_link"])
    if _STYLE in table.frame:
        table.frame[_STYLE] = _or_none(_read_text(table.frame[_STYLE]))
    _check_ids(table, ids := parse_id(table.frame["id"]))
    texts["image_link"] = _check_pictures(table, texts, PictureFolder(folder))
    columns = {"id": ids.values, **texts}
    columns["availability"] = table.read(
        "availability", parse_availability(table.frame["availability"])
    )
    columns = {name: _or_none(text) for name, text in columns.items()}
    columns["price"] = table.read("price", parse_price(table.frame["price"]))
    columns["created_at"] = table.read("created_at", parse_seconds(table.frame["created_at"]))
    return table.kept({name: columns[name] for name in ITEM_COLUMNS})


def _read_text(column: pd.Series) -> pd.Series:
    """As ``parse_text``, cleaned; what is markup alone is absent."""
    text = parse_text(column).map(clean_text, na_action="ignore")
    return text.where(text != "")


def _or_none(text: pd.Series) -> pd.Series:
    cells = text.astype(object)
    return cells.where(cells.notna(), None)


def _check_ids(table: CheckedTable, parsed: Parsed) -> None:
    ids = table.read("id", parsed, required=True)
    repeated = ids.duplicated() & ids.notna()
    table.reject(repeated, "id", lambda cell: f"{quoted(cell)} is the id of an earlier row too")


def _check_pictures(
    table: CheckedTable, texts: dict[str, pd.Series], pictures: PictureFolder
) -> pd.Series:
    links = texts["image_link"]
    untitled = texts["title"].isna()
    table.reject(links.isna() & untitled, "title", "there is neither a title nor an image_link")
    found, reasons = parse_distinct(links, pictures.find, "str")
    lost = reasons.notna()
    told = iter(reasons[lost & ~untitled].tolist())
    table.lose(lost & ~untitled, "image_link", lambda _: next(told))
    without = iter(reasons[lost & untitled].tolist())
    table.reject(lost & untitled, "image_link", lambda _: f"{next(without)}, and there is no title")
    return found
