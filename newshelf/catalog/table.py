"""A raw table of a catalogue, before its cells are checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.report import Problem
from newshelf.errors import CatalogError


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
