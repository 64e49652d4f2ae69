"""A table on its way through the checks: which rows are out, and why."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.columns import Parsed
from newshelf.catalog.read import Table
from newshelf.catalog.report import Problem, quoted
from newshelf.catalog.schema import EventType
from newshelf.errors import CatalogError

__all__ = ["CheckedTable", "listed"]

Reason = str | Callable[[Any], str]
"""The whole of it, or a function of the cell."""

_NEAR = 0.75
"""Similarity from which on an unknown column is taken for a misspelt one."""


class CheckedTable:
    """Collects the problems of one table, and which of its rows they leave out."""

    def __init__(self, table: Table) -> None:
        self.file = table.file
        self.rows_read = table.rows_read
        self.frame = table.frame.copy(deep=False)
        self.mapped = table.mapped
        self.notes = list(table.notes)
        self._problems = list(table.problems)
        self._rows = table.rows
        self._bad = np.zeros(len(table.rows), dtype=bool)

    def reject(self, where: Any, field: str, reason: Reason) -> None:
        """Leave out the rows under the mask ``where`` and report each."""
        mask = np.asarray(where, dtype=bool)
        self._report(mask, field, reason, "row")
        self._bad |= mask

    def lose(self, where: Any, field: str, reason: Reason) -> None:
        """Report the cells under the mask as left out; their rows stay."""
        self._report(np.asarray(where, dtype=bool), field, reason, "cell")

    def read(self, field: str, parsed: Parsed, *, required: bool = False) -> pd.Series:
        """Return a parsed column and report what could not be read of it.

        Args:
            field: the column.
            parsed: its values and reasons.
            required: leave out the row of a cell that is absent or could not be read.
        """
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
        """The rows that passed, numbered from 0: ``columns`` first, then all others."""
        others = {name: self.frame[name] for name in self.frame if name not in columns}
        frame = pd.DataFrame({**columns, **others})
        return frame[~self._bad].reset_index(drop=True)

    def problems(self) -> list[Problem]:
        """In the order of the rows."""
        return sorted(self._problems, key=lambda problem: problem.row or 0)

    def require(self, names: Iterable[str]) -> None:
        """Refuse a table that lacks one of the columns.

        Raises:
            CatalogError: with the columns found and the nearest name.
        """
        found = [str(name) for name in self.frame.columns]
        for name in names:
            if name not in found:
                raise CatalogError(f"{self.file} has no column {name!r}; {_advice(name, found)}")

    def look_for_misspelt(self, known: Iterable[str]) -> None:
        """Note the columns that are kept as they are but nearly have a known name."""
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
    """``"a, b or c"``."""
    *most, last = values
    return f"{', '.join(most)} or {last}"
