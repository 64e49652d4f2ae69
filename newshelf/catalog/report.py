"""What was wrong with a catalogue, where, and how much of it was kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Problem", "Report"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one place."""

    file: str
    """File name inside the catalogue's folder."""
    row: int | None
    """As the user sees it: the line (header included) of a text file, counted from 1;
    the row of a parquet file, counted from 1. None when it concerns the whole file."""
    field: str | None
    """Column name; None when it concerns the whole row."""
    reason: str

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file} row {self.row}"
        return f"{place}, {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """Every problem of a catalogue, in the order of files and rows."""

    problems: tuple[Problem, ...] = ()
    rows_read: Mapping[str, int] = field(default_factory=dict)
    """Rows in each file, by file name."""
    rows_kept: Mapping[str, int] = field(default_factory=dict)
    """Rows of each file that the catalogue holds, by file name."""
    notes: tuple[str, ...] = ()
    """Advice that is no problem: a column whose name is nearly one that we know."""

    def summary(self, limit: int = 10) -> str:
        """Counts per file, then the first ``limit`` problems, as lines of text."""
        lines = [
            f"{file}: {read:,} rows read, {self.rows_kept[file]:,} kept"
            for file, read in self.rows_read.items()
        ]
        lines += self.notes
        lines += self._problem_lines(limit)
        return "\n".join(lines)

    def _problem_lines(self, limit: int) -> list[str]:
        count = len(self.problems)
        if not count:
            return []
        lines = [f"{count:,} problem{'s' if count > 1 else ''}:"]
        lines += [f"  {problem}" for problem in self.problems[:limit]]
        if count > limit:
            lines.append(f"  … and {count - limit:,} more")
        return lines
