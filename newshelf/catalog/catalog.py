"""A catalogue that passed its checks, and the one way to get it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from newshelf.catalog.checks import CheckedTable, check_baskets, check_events, check_items
from newshelf.catalog.columns import parse_id, parse_text
from newshelf.catalog.find import EXTENSIONS, find_table
from newshelf.catalog.read import read_table
from newshelf.catalog.report import CatalogReport
from newshelf.catalog.schema import Product
from newshelf.errors import CatalogError, SetupError
from newshelf.files import directory_aside

_PRODUCT_FIELDS = tuple(Product.model_fields)


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items, and what people did with them; all references hold."""

    folder: Path
    """Where ``image_link`` starts."""
    name: str
    """The own name of the folder or file."""
    items: pd.DataFrame
    """One row per product, numbered from 0: all of ``ITEM_COLUMNS`` (texts ``str`` or None,
    ``price`` float64, ``created_at`` Int64), then the shop's own columns."""
    events: pd.DataFrame | None
    """``EVENT_COLUMNS`` and the shop's own, oldest first; None when there are none."""
    baskets: pd.DataFrame | None
    """``BASKET_COLUMNS`` and the shop's own; None when there are none."""
    report: CatalogReport

    @cached_property
    def item_index(self) -> Mapping[str, int]:
        """Id → row of ``items``."""
        return {item_id: row for row, item_id in enumerate(self.items["id"])}

    def products(self) -> list[Product]:
        """The items as the encoder sees them, in the order of ``items``."""
        frame = self.items[list(_PRODUCT_FIELDS)].astype(object)
        frame = frame.where(frame.notna(), None)
        return [
            Product(**dict(zip(_PRODUCT_FIELDS, row, strict=True)))
            for row in frame.itertuples(index=False, name=None)
        ]

    def image_path(self, row: int) -> Path | None:
        """The picture of the item in ``row``, or None when it has none."""
        link = self.items["image_link"].iloc[row]
        return None if link is None else self.folder / link


def read_catalog(folder: Path, *, strict: bool = False) -> Catalog:
    """Read and check the catalogue in ``folder``.

    Args:
        folder: holds ``items`` and perhaps ``events`` and ``baskets``, in any of
            ``EXTENSIONS``, and the pictures; or a file of items alone, such as a shop's export.
        strict: refuse a catalogue with any problem; otherwise bad rows are left out and
            ``Catalog.report`` has them all.

    Raises:
        CatalogError: a file is missing, unreadable or lacks a column; nothing is left of
            the items; or, if strict, any row has a problem.
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
    """Write a catalogue in our own columns and words, with copies of its pictures.

    Parquet holds ids, numbers and absent cells exactly: read again, it is the same catalogue,
    without a problem. What the tables hold further is written, too; cells that are neither
    text nor number, as text. A process that is killed leaves no folder.

    Args:
        catalog: as it was read.
        folder: must not exist, or be empty.

    Raises:
        SetupError: there is something in ``folder``, or it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SetupError(f"{folder} exists and is not an empty folder")
        with directory_aside(folder.resolve()) as aside:
            for name in ("items", "events", "baskets"):
                frame: pd.DataFrame | None = getattr(catalog, name)
                if frame is not None:
                    objects = [name for name in frame if frame[name].dtype == object]
                    texts = {name: parse_text(frame[name]) for name in objects}
                    frame.assign(**texts).to_parquet(aside / f"{name}.parquet", index=False)
            for link in catalog.items["image_link"].dropna().unique():
                (aside / link).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(catalog.folder / link, aside / link)
    except OSError as error:
        raise SetupError(f"cannot write {folder}: {error.strerror or error}") from error


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
        raise CatalogError(f"{folder} was refused, as strict asks.\n{report.summary()}")
    if items.empty:
        raise CatalogError(f"{folder} has no usable item.\n{report.summary()}")
