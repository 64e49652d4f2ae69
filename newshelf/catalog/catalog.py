"""A checked catalogue: reading it from a folder, and writing it in canonical form."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from newshelf.catalog.checks import CheckedTable, check_baskets, check_events, check_items
from newshelf.catalog.columns import parse_id, parse_text
from newshelf.catalog.read import read_table
from newshelf.catalog.report import CatalogReport
from newshelf.catalog.schema import EXTENSIONS, Product, find_table
from newshelf.errors import CatalogError, SetupError
from newshelf.files import directory_aside

_PRODUCT_FIELDS = tuple(Product.model_fields)


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items with their events and baskets. All references are valid."""

    folder: Path
    """Base of ``image_link``."""
    name: str
    items: pd.DataFrame
    """One row per product, numbered from 0: all ``ITEM_COLUMNS`` (texts ``str`` or None, ``price``
    float64, ``created_at`` Int64), then other columns of the file."""
    events: pd.DataFrame | None
    """``EVENT_COLUMNS`` and other columns, oldest first; None without events."""
    baskets: pd.DataFrame | None
    """``BASKET_COLUMNS`` and other columns; None without baskets."""
    report: CatalogReport

    @cached_property
    def item_index(self) -> Mapping[str, int]:
        """Return id → row of ``items``."""
        return {item_id: row for row, item_id in enumerate(self.items["id"])}

    def rows(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield each item's cells of some columns by name, None where absent."""
        frame = self.items[list(names)].astype(object)
        for row in frame.where(frame.notna(), None).itertuples(index=False, name=None):
            yield dict(zip(names, row, strict=True))

    def products(self) -> list[Product]:
        """Return the items as the encoder reads them, in the order of ``items``."""
        return [Product(**row) for row in self.rows(_PRODUCT_FIELDS)]

    def image_path(self, row: int) -> Path | None:
        """Return the path of the picture of the item in ``row``, or None."""
        link = self.items["image_link"].iloc[row]
        return None if link is None else self.folder / link


def read_catalog(folder: Path, *, strict: bool = False) -> Catalog:
    """Read and check the catalogue in ``folder``, or a file of items only, such as a shop's export.

    Bad rows are left out and listed in ``Catalog.report``. Raises ``CatalogError`` if a file is
    missing, unreadable or lacks a column; if no item is usable; or, if strict, for any problem.
    """
    source = Path(folder)
    items_table = _open(source, "items")
    if items_table is None:
        raise CatalogError(_no_items(source))
    folder = source.parent if source.is_file() else source
    items = check_items(items_table, folder)
    in_file = parse_id(items_table.frame["id"]).values
    checked = [(items_table, items)]
    frames: dict[str, pd.DataFrame | None] = {"events": None, "baskets": None}
    for name, check in (("events", check_events), ("baskets", check_baskets)):
        if (table := _open(source, name)) is not None:
            frame = check(table, items["id"], in_file)
            checked.append((table, frame))
            frames[name] = None if frame.empty else frame
    report = _report(checked)
    _refuse(folder, items, report, strict)
    return Catalog(folder, source.resolve().name, items, **frames, report=report)


def write_catalog(catalog: Catalog, folder: Path) -> None:
    """Write a catalogue with canonical columns and words as Parquet, and copy its pictures.

    Reading it returns the same catalogue without problems. The folder appears atomically; raises
    ``SetupError`` if it is not empty or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SetupError(f"{folder} exists and is not an empty folder")
        with directory_aside(folder.resolve()) as aside:
            write_tables(catalog, aside)
            for link in catalog.items["image_link"].dropna().unique():
                (aside / link).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(catalog.folder / link, aside / link)
    except OSError as error:
        raise SetupError(f"cannot write {folder}: {error.strerror or error}") from error


def write_tables(catalog: Catalog, folder: Path) -> None:
    """Write the tables of a catalogue with canonical columns and words as Parquet."""
    for name in ("items", "events", "baskets"):
        frame: pd.DataFrame | None = getattr(catalog, name)
        if frame is not None:
            objects = [name for name in frame if frame[name].dtype == object]
            texts = {name: parse_text(frame[name]) for name in objects}
            frame.assign(**texts).to_parquet(folder / f"{name}.parquet", index=False)


def _open(folder: Path, name: str) -> CheckedTable | None:
    path = find_table(folder, name)
    return None if path is None else CheckedTable(read_table(path, name))


def _no_items(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    found = sorted(path.name for path in folder.iterdir())
    names = ", ".join(f"items{end}" for end in EXTENSIONS)
    return (
        f"{folder} holds none of {names}; it holds {', '.join(found[:10]) or 'nothing'}."
        " To read a shop's export, give the file itself"
    )


def _report(checked: Sequence[tuple[CheckedTable, pd.DataFrame]]) -> CatalogReport:
    return CatalogReport(
        problems=tuple(problem for table, _ in checked for problem in table.problems()),
        rows_read={table.file: table.rows_read for table, _ in checked},
        rows_kept={table.file: len(frame) for table, frame in checked},
        notes=tuple(note for table, _ in checked for note in table.notes),
        mapped={table.file: table.mapped for table, _ in checked},
    )


def _refuse(folder: Path, items: pd.DataFrame, report: CatalogReport, strict: bool) -> None:
    if strict and report.problems:
        raise CatalogError(
            f"{folder} is refused in strict mode, as it has problems.\n{report.summary()}"
        )
    if items.empty:
        raise CatalogError(f"{folder} has no usable item.\n{report.summary()}")
