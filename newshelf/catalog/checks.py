"""Checks of the items, events and baskets tables, and of the pictures that they name.

Bad rows are left out, problems collected.
"""

import contextlib
import difflib
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.clean import clean_text
from newshelf.catalog.columns import (
    BEFORE_SHOPS,
    Parsed,
    parse_availability,
    parse_distinct,
    parse_id,
    parse_price,
    parse_seconds,
    parse_text,
)
from newshelf.catalog.report import Problem, RawTable, quoted
from newshelf.catalog.schema import BASKET_COLUMNS, EVENT_COLUMNS, ITEM_COLUMNS, EventType, trim
from newshelf.errors import CatalogError

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+:)?//", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)
_RELATIVE = "must be a path relative to the catalogue's folder, without '..'"
_LISTED_FOLDERS = 20
"""Folders to search for a file of the same name."""


class PictureFolder:
    """Lookup of links in the catalogue's folder; resolves and lists each directory once."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._resolved = cache(self._resolve)
        self._names = cache(self._list_names)

    def find(self, link: str) -> tuple[str | None, str | None]:
        """Return the path within the folder of the file that ``link`` names, or the reason of none.

        A link with backslashes, other case or Unicode form, or written as a URL's path (``%20``,
        ``?v=1``, a leading slash) is found if exactly one file matches.
        """
        plain = not link.startswith("/") and ".." not in link and "\0" not in link
        if plain and os.path.lexists(f"{self._root}/{link}"):  # the usual case
            reason = self._problem(PurePosixPath(link))
            return (None, f"{quoted(link)} {reason}") if reason else (link, None)
        paths = [PurePosixPath(spelling) for spelling in _spellings(link)]
        if reason := _refused(link, paths):
            return None, reason
        for path in paths:
            found = self._matching(path)
            if len(found) > 1:
                names = " or ".join(map(quoted, found[:2]))
                return None, f"{quoted(link)} could be {names}: write it as the file is called"
            if found:
                reason = self._problem(PurePosixPath(found[0]))
                return (None, f"{quoted(link)} {reason}") if reason else (found[0], None)
        if paths[1].is_absolute():
            return None, f"{quoted(link)} {_RELATIVE}"
        return None, f"there is no file {quoted(link)} in the catalogue's folder{self._hint(link)}"

    def _matching(self, path: PurePosixPath) -> list[str]:
        """Return paths that differ from ``path`` in Unicode form only, else those in case too."""
        found = [""] if not path.is_absolute() else []
        for part in path.parts:
            found = [
                str(PurePosixPath(base, name))
                for base in found
                for name in self._names(base).get(_fold(part), ())
            ]
        same = unicodedata.normalize("NFC", str(path))
        return [name for name in found if unicodedata.normalize("NFC", name) == same] or found

    def _problem(self, path: PurePosixPath) -> str | None:
        """Return why the existing file at ``path`` cannot be used."""
        try:
            status = os.lstat(self._root / path)
            is_link = stat.S_ISLNK(status.st_mode)
            inside = (self._root / path).resolve() if is_link else self._resolved(path.parent)
            if not inside.is_relative_to(self._root):
                return "leads out of the catalogue's folder"
            if is_link:
                status = (self._root / path).stat()
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return "is not a file"
        return None if status.st_size else "is an empty file"

    def _hint(self, link: str) -> str:
        """Suggest a file in another folder or with another extension."""
        first = re.split(r"[,;|]", link)[0]
        if first != link and (found := self.find(first)[0]):
            return f": it names several; give one, such as {quoted(found)}"
        path = PurePosixPath(_spellings(link)[-1])
        inside = sorted(names[0] for names in self._names("").values())
        inside = [name for name in inside if (self._root / name).is_dir()][:_LISTED_FOLDERS]
        folders = [*self._matching(path.parent), "", *inside]
        for by_stem in (False, True):
            for folder in folders:
                names = self._names(folder, by_stem=by_stem)
                if near := names.get(_fold(path.stem if by_stem else path.name)):
                    return f"; is {quoted(str(PurePosixPath(folder, near[0])))} meant?"
        return ""

    def _list_names(self, folder: str, *, by_stem: bool = False) -> dict[str, list[str]]:
        """Return folded name → names in ``folder``."""
        found: dict[str, list[str]] = {}
        if self._resolved(PurePosixPath(folder)).is_relative_to(self._root):
            with contextlib.suppress(OSError):
                for name in sorted(path.name for path in (self._root / folder).iterdir()):
                    if name.isascii() or not re.search("[\ud800-\udfff]", name):
                        key = PurePosixPath(name).stem if by_stem else name
                        found.setdefault(_fold(key), []).append(name)
        return found

    def _resolve(self, path: PurePosixPath) -> Path:
        return (self._root / path).resolve()


def _spellings(link: str) -> list[str]:
    plain = trim(link).replace("\\", "/")
    bare = re.split(r"[?#]", plain.lstrip("/"))[0]
    return [link, plain, plain.lstrip("/"), bare, unquote(bare)]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _refused(link: str, paths: Sequence[PurePosixPath]) -> str | None:
    if link.lower().startswith("data:"):
        return f"{quoted(link)} is the picture itself: write it to a file and give its path"
    if _URL.match(link):
        return f"{quoted(link)} is a URL: put the picture into the folder and give its path"
    if _DRIVE.match(link) or any(".." in path.parts or "\0" in str(path) for path in paths):
        return f"{quoted(link)} {_RELATIVE}"
    return None


Reason = str | Callable[[Any], str]
"""The reason, or a function of the cell that returns it."""

_NEAR = 0.75
"""Similarity above which an unknown column counts as misspelt."""


class CheckedTable:
    """A table under check: its problems, and the rows that they leave out."""

    def __init__(self, table: RawTable) -> None:
        self.file = table.file
        self.rows_read = table.rows_read
        self.frame = table.frame.copy(deep=False)
        self.mapped = table.mapped
        self.notes = list(table.notes)
        self._problems = list(table.problems)
        self._rows = table.rows
        self._bad = np.zeros(len(table.rows), dtype=bool)

    def reject(self, where: Any, field: str, reason: Reason) -> None:
        """Leave out the rows of the mask ``where`` and report each."""
        mask = np.asarray(where, dtype=bool)
        self._report(mask, field, reason, "row")
        self._bad |= mask

    def lose(self, where: Any, field: str, reason: Reason) -> None:
        """Report the cells of the mask as left out; their rows stay."""
        self._report(np.asarray(where, dtype=bool), field, reason, "cell")

    def read(self, field: str, parsed: Parsed, *, required: bool = False) -> pd.Series:
        """Return a column's values and report unreadable cells, whose rows go if ``required``."""
        unread = parsed.reasons.notna().to_numpy()
        reasons = iter(parsed.reasons[unread].tolist())
        report = self.reject if required else self.lose
        report(unread, field, lambda cell: f"{quoted(cell)} {next(reasons)}")
        if required:
            missing = parsed.values.isna().to_numpy() & ~unread
            self.reject(missing, field, f"the {field} is missing")
        return parsed.values

    def _report(
        self, mask: npt.NDArray[np.bool_], field: str, reason: Reason, lost: Literal["row", "cell"]
    ) -> None:
        places = np.flatnonzero(mask)
        rows = self._rows[places].tolist()
        cells = self.frame[field].iloc[places].tolist()
        for row, cell in zip(rows, cells, strict=True):
            text = reason if isinstance(reason, str) else reason(cell)
            self._problems.append(Problem(self.file, row, field, text, lost))

    def kept(self, columns: dict[str, pd.Series]) -> pd.DataFrame:
        """Return the rows that passed, numbered from 0: ``columns`` first, then all others."""
        others = {name: self.frame[name] for name in self.frame if name not in columns}
        frame = pd.DataFrame({**columns, **others})
        return frame[~self._bad].reset_index(drop=True)

    def problems(self) -> list[Problem]:
        """Return the problems in the order of rows."""
        return sorted(self._problems, key=lambda problem: problem.row or 0)

    def require(self, names: Iterable[str]) -> None:
        """Check that the table has all of the columns."""
        found = [str(name) for name in self.frame.columns]
        for name in names:
            if name not in found:
                raise CatalogError(f"{self.file} has no column {name!r}; {_advice(name, found)}")

    def note_misspelt(self, known: Iterable[str]) -> None:
        """Note the unknown columns whose names resemble known ones."""
        free = [name for name in known if name not in self.frame]
        for column in map(str, self.frame.columns):
            near = difflib.get_close_matches(column.lower(), free, n=1, cutoff=_NEAR)
            if column not in known and near:
                self.notes.append(
                    f"{self.file}: the column {column!r} is kept as it is;"
                    f" rename it if {near[0]!r} is meant"
                )


def _advice(name: str, found: list[str]) -> str:
    advice = f"it has {', '.join(found) or 'none'}"
    by_lower = {column.lower(): column for column in found}
    if near := difflib.get_close_matches(name, by_lower, n=1, cutoff=0.4):
        advice += f". Is {by_lower[near[0]]!r} the one to rename?"
    if name == "event_type":
        advice += (
            f". Add it, with one of {listed(EventType)} in each row;"
            " when every row is a sale, write purchase"
        )
    return advice


def listed(values: Iterable[str]) -> str:
    """Return ``"a, b or c"``."""
    *most, last = values
    return f"{', '.join(most)} or {last}"


_TEXTS = ("title", "description", "product_type", "brand", "color", "material", "size")

_STYLE = "style"
"""Not in the schema, but read as text if the file has it."""


def check_items(table: CheckedTable, folder: Path) -> pd.DataFrame:
    """Check every item and report problems to ``table``.

    Returns all ``ITEM_COLUMNS``, then the others. Texts are ``str`` or None (object), ``price`` is
    float64 with NaN, ``created_at`` Int64 with NA.
    """
    table.require(["id"])
    if "title" not in table.frame and "image_link" not in table.frame:
        raise CatalogError(
            f"{table.file} has neither a column 'title' nor 'image_link'; it has"
            f" {', '.join(map(str, table.frame.columns))}"
        )
    table.note_misspelt(ITEM_COLUMNS)
    for name in ITEM_COLUMNS:
        if name not in table.frame:
            table.frame[name] = None
    texts = {name: _read_text(table.frame[name]) for name in _TEXTS}
    texts["image_link"] = parse_text(table.frame["image_link"])
    if _STYLE in table.frame:
        table.frame[_STYLE] = _or_none(_read_text(table.frame[_STYLE]))
    ids = table.read("id", parse_id(table.frame["id"]), required=True)
    repeated = ids.duplicated() & ids.notna()
    table.reject(repeated, "id", lambda cell: f"{quoted(cell)} is the id of an earlier row too")
    texts["image_link"] = _check_pictures(table, texts, PictureFolder(folder))
    columns = {"id": ids, **texts}
    columns["availability"] = table.read(
        "availability", parse_availability(table.frame["availability"])
    )
    columns = {name: _or_none(text) for name, text in columns.items()}
    columns["price"] = table.read("price", parse_price(table.frame["price"]))
    columns["created_at"] = table.read("created_at", parse_seconds(table.frame["created_at"]))
    return table.kept({name: columns[name] for name in ITEM_COLUMNS})


def _read_text(column: pd.Series) -> pd.Series:
    """Return cleaned text; cells with only markup are absent."""
    text = parse_text(column).map(clean_text, na_action="ignore")
    return text.where(text != "")


def _or_none(text: pd.Series) -> pd.Series:
    cells = text.astype(object)
    return cells.where(cells.notna(), None)


def _check_pictures(
    table: CheckedTable, texts: dict[str, pd.Series], pictures: PictureFolder
) -> pd.Series:
    links = texts["image_link"]
    untitled = texts["title"].isna()
    table.reject(links.isna() & untitled, "title", "there is neither a title nor an image_link")
    found, reasons = parse_distinct(links, pictures.find, "str")
    lost = reasons.notna()
    explained = iter(reasons[lost & ~untitled].tolist())
    table.lose(lost & ~untitled, "image_link", lambda _: next(explained))
    without = iter(reasons[lost & untitled].tolist())
    table.reject(lost & untitled, "image_link", lambda _: f"{next(without)}, and there is no title")
    return found


def check_events(table: CheckedTable, known: pd.Series, left_out: pd.Series) -> pd.DataFrame:
    """Check every event and report what is wrong to ``table``.

    ``known`` are the ids of the items that are kept, ``left_out`` those of the others in their
    file. Returns ``EVENT_COLUMNS`` (``str`` and int64), then the others, in the order of time.
    """
    table.require(EVENT_COLUMNS)
    ids = _ids(table, ("user_id", "item_id"), known, left_out)
    kinds = parse_distinct(parse_text(table.frame["event_type"]), _event_type, "str")
    columns = {**ids, "event_type": table.read("event_type", kinds, required=True)}
    columns["timestamp"] = table.read(
        "timestamp", parse_seconds(table.frame["timestamp"]), required=True
    )
    events = table.kept({name: columns[name] for name in EVENT_COLUMNS})
    events["timestamp"] = events["timestamp"].astype("int64")
    if len(events) and events["timestamp"].max() < BEFORE_SHOPS:
        table.notes.append(
            f"{table.file}: all timestamps are before 1990; are they seconds since 1970?"
        )
    return events.sort_values("timestamp", kind="stable", ignore_index=True)


def check_baskets(table: CheckedTable, known: pd.Series, left_out: pd.Series) -> pd.DataFrame:
    """Check every basket row as ``check_events`` does; the order is that of the file."""
    table.require(BASKET_COLUMNS)
    return table.kept(_ids(table, BASKET_COLUMNS, known, left_out))


def _event_type(cell: str) -> tuple[str | None, str | None]:
    word = cell.strip().casefold()
    known = word in list(EventType)
    return (word, None) if known else (None, f"is not {listed(EventType)}")


def _ids(
    table: CheckedTable, names: Sequence[str], known: pd.Series, left_out: pd.Series
) -> dict[str, pd.Series]:
    ids = {name: table.read(name, parse_id(table.frame[name]), required=True) for name in names}
    unknown = ids["item_id"].notna() & ~ids["item_id"].isin(known)
    if not unknown.any():
        return ids
    out = unknown & ids["item_id"].isin(left_out)
    table.reject(out, "item_id", lambda cell: f"the item {quoted(cell)} was left out of the items")
    near = {_loose(one): one for one in known}
    alike = ids["item_id"].where(unknown & ~out).map(lambda one: near.get(_loose(one)), "ignore")
    twins = iter(alike.dropna().tolist())
    table.reject(
        alike.notna(),
        "item_id",
        lambda cell: (
            f"there is no item {quoted(cell)} in the items, but there is {quoted(next(twins))}:"
            " save ids as text, in one spelling"
        ),
    )
    table.reject(
        unknown & ~out & alike.isna(),
        "item_id",
        lambda cell: f"there is no item {quoted(cell)} in the items",
    )
    return ids


def _loose(one: str) -> str:
    """Return an id without leading zeros, ``.0`` and case, which spreadsheets change."""
    return one.casefold().removesuffix(".0").lstrip("0")
