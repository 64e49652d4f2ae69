"""Raw tables, and the report of their checks: problems with their places, and numbers of rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import TextWrapper
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.errors import CatalogError

_LONGEST_CELL = 60
_LONGEST_REASON = 300
_MOST_GROUPS = 50
_MOST_ROWS = 100
_CELL_OR_NUMBER = re.compile(
    r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[0-9][0-9.,]*(?:e[+-]?[0-9]+)?"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def quoted(cell: object) -> str:
    """Return a cell in quotes, shortened, with control characters escaped."""
    text = cell if isinstance(cell, str) else str(cell)
    shown = repr(text[:_LONGEST_CELL])
    return shown if len(text) <= _LONGEST_CELL else f"{shown[:-1]}…{shown[-1]}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of one cell, row or file."""

    file: str
    row: int | None
    """Counted from 1: the line of a text file (with header), or the row of a Parquet file. None for
    the whole file."""
    field: str | None
    """Name of the column; None for the whole row."""
    reason: str
    """Begins with the cell in quotes where useful."""
    lost: Literal["row", "cell"] = "row"
    """Whether the row or only the cell is left out."""

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file} row {self.row}"
        return f"{place}, {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Group:
    """Problems of one file and column with the same reason, regardless of the cells."""

    first: Problem
    rows: Sequence[int | None]

    def __str__(self) -> str:
        first, count = self.first, len(self.rows)
        reason = _CONTROL.sub(lambda found: repr(found[0])[1:-1], first.reason)
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[:_LONGEST_REASON]}…"
        where = f"{first.field}: " if first.field else ""
        if first.row is None:
            return f"{where}{reason}"
        lost = first.lost + ("s" if count > 1 else "")
        place = f"row {first.row}" if count == 1 else f"such as row {first.row}"
        return f"{where}{count:,} {lost} left out, {place}: {reason}"


@dataclass(frozen=True)
class CatalogReport:
    """All problems of a catalogue, in the order of files and rows."""

    problems: tuple[Problem, ...] = ()
    rows_read: Mapping[str, int] = field(default_factory=dict)
    """File name → rows in the file."""
    rows_kept: Mapping[str, int] = field(default_factory=dict)
    """File name → rows in the catalogue."""
    notes: tuple[str, ...] = ()
    """Advice: assumptions, and columns whose names resemble known ones."""
    mapped: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """File name → pairs of the file's and the canonical name of a column or event."""

    def groups(self) -> list[Group]:
        """Return the problems by file, column and reason; the most frequent of each file first."""
        rows: dict[tuple[object, ...], list[int | None]] = {}
        first: dict[tuple[object, ...], Problem] = {}
        for problem in self.problems:
            kind = _CELL_OR_NUMBER.sub("…", problem.reason)
            key = (problem.file, problem.field, problem.lost, kind)
            first.setdefault(key, problem)
            rows.setdefault(key, []).append(problem.row)
        files = [*self.rows_read]
        groups = [Group(problem, rows[key]) for key, problem in first.items()]
        return sorted(groups, key=lambda group: (files.index(group.first.file), -len(group.rows)))

    def unusable(self) -> list[str]:
        """Return a line with the main reason for each file whose rows are all unusable."""
        first = {group.first.file: group for group in reversed(self.groups())}
        return [
            f"{file}: {read:,} rows read, none usable"
            + (f": {first[file]}" if file in first else "")
            for file, read in self.rows_read.items()
            if read and not self.rows_kept[file]
        ]

    def summary(self, width: int | None = None) -> str:
        """Return counts per file, mapped names, problems and notes, wrapped at ``width``."""
        lines = self._lines()
        if width is not None:
            wrapper = TextWrapper(
                width, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
            )
            lines = map(wrapper.fill, lines)
        return "\n".join(lines)

    def _lines(self) -> Iterator[str]:
        groups = self.groups()
        for file, read in self.rows_read.items():
            kept = self.rows_kept[file]
            usable = "none usable" if read and not kept else f"{kept:,} kept"
            yield f"{file}: {read:,} rows read, {usable}"
            if mapped := self.mapped.get(file):
                width = max(len(found) for found, _ in mapped)
                yield "  read as our names:"
                yield from (f"    {found:<{width}}  {ours}" for found, ours in mapped)
            mine = [group for group in groups if group.first.file == file]
            yield from (f"  {group}" for group in mine[:_MOST_GROUPS])
            if len(mine) > _MOST_GROUPS:
                yield f"  … and {len(mine) - _MOST_GROUPS:,} more kinds"
        yield from (f"note: {note}" for note in self.notes)

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON data, with the first rows of each kind of problem."""
        return {
            "files": {
                file: {
                    "rows_read": read,
                    "rows_kept": self.rows_kept[file],
                    "mapped": dict(self.mapped.get(file, ())),
                }
                for file, read in self.rows_read.items()
            },
            "problems": [
                {
                    "file": group.first.file,
                    "field": group.first.field,
                    "lost": group.first.lost,
                    "count": len(group.rows),
                    "reason": group.first.reason,
                    "rows": group.rows[:_MOST_ROWS],
                }
                for group in self.groups()
            ],
            "notes": list(self.notes),
        }


class Mapped(NamedTuple):
    """A name in the file, and the canonical name that it is read as."""

    found: str
    """The file's column (``Variant Price``), or column and word (``event_name: view_item``)."""
    ours: str
    """Canonical column (``price``) or word (``view``)."""


@dataclass(frozen=True)
class RawTable:
    """A table as in its file. Cells of a text file are ``str``, empty for absent."""

    file: str
    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]
    """(len(frame),) row numbers for messages."""
    rows_read: int
    problems: tuple[Problem, ...] = field(default=())
    """Unreadable records, cells and columns."""
    mapped: tuple[Mapped, ...] = field(default=())
    """In the order of the file, without columns that have canonical names."""
    notes: tuple[str, ...] = field(default=())
    """Assumptions, such as the encoding."""


def make_table(
    file: str,
    columns: Sequence[tuple[str, Sequence[str | None]]],
    rows: Sequence[int],
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
) -> RawTable:
    """Return a table of text cells; cells that are not valid Unicode are emptied and reported."""
    refuse_repeated(file, [name for name, _ in columns])
    found, frame = list(problems), {}
    for name, cells in columns:
        series = pd.Series(list(cells), dtype=object)
        try:
            frame[name] = series.astype("str")
        except UnicodeEncodeError:  # a lone surrogate: an undecodable byte
            bad = series.map(lambda cell: cell and cell != cell.encode(errors="replace").decode())
            places = np.flatnonzero(bad.fillna(False)).tolist()
            reason = "the cell has bytes that are not in the file's encoding"
            found += [Problem(file, rows[place], name, reason, "cell") for place in places]
            series.iloc[places] = ""
            frame[name] = series.astype("str")
    return RawTable(
        file,
        pd.DataFrame(frame, index=range(len(rows))),
        np.asarray(rows, dtype=np.int64),
        len(rows) + sum(problem.lost == "row" for problem in found),
        tuple(found),
        notes=tuple(notes),
    )


def refuse_repeated(file: str, names: Sequence[str]) -> None:
    """Raise CatalogError if the name of a column is repeated."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, repeated))
        raise CatalogError(f"{file} has the column {listed} more than once: keep one of each")
