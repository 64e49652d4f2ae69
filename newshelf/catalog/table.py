"""A table of a catalogue as it stands in its file, before any cell is checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.report import Problem
from newshelf.errors import CatalogError


class Mapped(NamedTuple):
    """A shop's own name that is read as one of ours."""

    found: str
    """The file's column (``Variant Price``), or column and word (``event_name: view_item``)."""
    ours: str
    """Our column (``price``) or word (``view``)."""


@dataclass(frozen=True)
class RawTable:
    """A table as it stands in its file. Cells of a text file are ``str``, empty for absent."""

    file: str
    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]
    """``(len(frame),)``: the row number that the user sees."""
    rows_read: int
    problems: tuple[Problem, ...] = field(default=())
    """Records that could not become rows, and cells or columns that were lost in reading."""
    mapped: tuple[Mapped, ...] = field(default=())
    """In the order of the file; what already has our name is not listed."""
    notes: tuple[str, ...] = field(default=())
    """What was assumed in reading, such as the encoding: advice, no problem."""


def make_table(
    file: str,
    columns: Sequence[tuple[str, Sequence[str | None]]],
    rows: Sequence[int],
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
) -> RawTable:
    """Build a table of text cells; a cell that is no Unicode text is emptied and reported."""
    refuse_repeated(file, [name for name, _ in columns])
    found, frame = list(problems), {}
    for name, cells in columns:
        series = pd.Series(list(cells), dtype=object)
        try:
            frame[name] = series.astype("str")
        except UnicodeEncodeError:  # a lone surrogate: a byte or half a character that is no text
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
    """Raise CatalogError when a column's name is there more than once."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, repeated))
        raise CatalogError(f"{file} has the column {listed} more than once: keep one of each")
