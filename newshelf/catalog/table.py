"""A table of a catalogue as it stands in its file, before any cell is checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.report import Problem
from newshelf.errors import CatalogError

__all__ = ["Mapped", "Table", "make_table"]


class Mapped(NamedTuple):
    """A shop's own name that is read as one of ours."""

    found: str
    """The file's column (``Variant Price``), or column and word (``event_name: view_item``)."""
    ours: str
    """Our column (``price``) or word (``view``)."""


@dataclass(frozen=True)
class Table:
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
    columns: Sequence[tuple[str, Sequence[Any]]],
    rows: Sequence[int],
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
) -> Table:
    """Build a table of a text file from its columns; bad rows are those in ``problems``.

    A cell that is no Unicode text is emptied and reported.

    Raises:
        CatalogError: two columns have one name.
    """
    names = [name for name, _ in columns]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, repeated))
        raise CatalogError(f"{file} has the column {listed} more than once: keep one of each")
    lost: list[Problem] = []
    frame = pd.DataFrame(
        {name: _series(file, name, cells, rows, lost) for name, cells in columns},
        index=range(len(rows)),
    )
    numbers = np.asarray(rows, dtype=np.int64)
    read = len(rows) + len(problems)
    return Table(file, frame, numbers, read, (*problems, *lost), notes=tuple(notes))


def _series(
    file: str, name: str, cells: Sequence[Any], rows: Sequence[int], lost: list[Problem]
) -> pd.Series:
    if isinstance(cells, pd.Series):
        return cells
    try:
        return pd.Series(list(cells), dtype="str")
    except UnicodeEncodeError:  # a lone surrogate: a byte or half a character that is no text
        kept = list(cells)
    for place, cell in enumerate(kept):
        if cell is not None and cell != cell.encode(errors="replace").decode():
            reason = "the cell has bytes that are not in the file's encoding: it is left out"
            lost.append(Problem(file, rows[place], name, reason, "cell"))
            kept[place] = ""
    return pd.Series(kept, dtype="str")
