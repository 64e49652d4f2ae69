"""Read one table of a catalogue from parquet, CSV or TSV, nothing decided yet.

Text files are parsed with the standard library's ``csv``, which knows the line on which
each record began; a report that names the wrong row after the first quoted line break
would be worse than none.
"""

import codecs
import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from newshelf.catalog.report import Problem
from newshelf.errors import CatalogError

__all__ = ["EXTENSIONS", "Mapped", "Table", "find_table", "read_table"]

EXTENSIONS = (".parquet", ".csv", ".tsv")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_FOREIGN_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


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
    """Records that could not become rows, and cells that were lost in reading."""
    mapped: tuple[Mapped, ...] = field(default=())
    """In the order of the file; what already has our name is not listed."""
    notes: tuple[str, ...] = field(default=())
    """What was assumed in reading, such as the encoding: advice, no problem."""


def find_table(folder: Path, name: str) -> Path | None:
    """The file of table ``name``, or None.

    Raises:
        CatalogError: when there are two, since either could be the stale one.
    """
    found = [path for end in EXTENSIONS if (path := folder / f"{name}{end}").is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise CatalogError(f"{folder} holds {names}: keep one of them")
    return found[0] if found else None


def read_table(path: Path) -> Table:
    """Read one file.

    Raises:
        CatalogError: when the file as a whole cannot be read: empty, in another encoding,
            a broken quote, a repeated column name, not parquet.
    """
    try:
        if path.stat().st_size == 0:
            raise CatalogError(f"{path} is empty: it needs at least a header")
        return _read_parquet(path) if path.suffix == ".parquet" else _read_text(path)
    except OSError as error:
        raise CatalogError(f"cannot read {path}: {error.strerror or error}") from error


def _read_parquet(path: Path) -> Table:
    try:
        # A handle, not the path: pyarrow would read partition columns out of a path
        # such as shop=1/items.parquet.
        with path.open("rb") as handle:
            table = pq.read_table(handle)
        _refuse_repeated(path, table.column_names)
        frame = table.to_pandas(ignore_metadata=True)
    except pa.ArrowException as error:
        raise CatalogError(f"{path} is not a parquet file that can be read: {error}") from error
    rows = np.arange(1, len(frame) + 1, dtype=np.int64)
    return Table(path.name, frame, rows, len(frame))


def _read_text(path: Path) -> Table:
    reader = csv.reader(
        io.StringIO(_decode(path), newline=""), delimiter=_DELIMITERS[path.suffix], strict=True
    )
    records: list[list[str]] = []
    lines: list[int] = []
    problems: list[Problem] = []
    header: list[str] = []
    line = 1
    try:
        for record in reader:
            if not record:  # a blank line is no record
                pass
            elif not header:
                header = record
                _refuse_repeated(path, header)
            elif len(record) == len(header):
                records.append(record)
                lines.append(line)
            else:
                reason = f"{len(record)} fields where the header has {len(header)}"
                problems.append(Problem(path.name, line, None, reason))
            line = reader.line_num + 1
    except csv.Error as error:
        raise CatalogError(f"{path} line {line}: {error}") from error
    if not header:
        raise CatalogError(f"{path} holds blank lines only: it needs at least a header")
    columns = zip(*records, strict=True) if records else ((),) * len(header)
    frame = pd.DataFrame(
        {
            name: pd.Series(list(cells), dtype="str")
            for name, cells in zip(header, columns, strict=True)
        }
    )
    rows = np.asarray(lines, dtype=np.int64)
    return Table(path.name, frame, rows, len(lines) + len(problems), tuple(problems))


def _decode(path: Path) -> str:
    """The file's text, without a byte order mark."""
    data = path.read_bytes()
    for mark, encoding in _FOREIGN_MARKS.items():
        if data.startswith(mark):
            raise CatalogError(f"{path} is {encoding}: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CatalogError(
            f"{path} line {line}: byte 0x{data[error.start]:02x} is not UTF-8: save it as UTF-8"
        ) from error


def _refuse_repeated(path: Path, columns: list[str]) -> None:
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise CatalogError(f"{path} has the column {', '.join(repeated)} more than once")
