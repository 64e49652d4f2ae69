"""Reading of a table file as raw cells: format detection by content, and Parquet."""

import gzip
import io
import uuid
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as kinds

from newshelf.catalog.names import apply_names, join_values
from newshelf.catalog.report import Problem, RawTable, refuse_repeated
from newshelf.catalog.schema import unguard_formula
from newshelf.catalog.text import decode, read_delimited, read_feed, read_json
from newshelf.errors import CatalogError

_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    **{pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in _INTEGERS},
}
"""Types that pandas would convert to floats or objects for one missing value."""


def read_parquet(file: str, handle: BinaryIO) -> RawTable:
    """Read a Parquet file; unreadable columns are left out and reported.

    Integers stay integers even with missing values; decimals, UUIDs and lists become text, dates
    midnight UTC.
    """
    columns: dict[str, pd.Series] = {}
    problems = []
    try:
        # A handle, since pyarrow reads partition columns from paths such as shop=1/items.parquet.
        table = pq.read_table(handle)
        names = table.column_names
        refuse_repeated(file, names)
        for name, column in zip(names, table.columns, strict=True):
            try:
                columns[name] = _series(name, column)
            except (ValueError, TypeError, NotImplementedError) as error:
                reason = str(error).partition("\n")[0][:200]
                problems.append(Problem(file, None, name, reason, "cell"))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{file} is not a parquet file that can be read: {error}") from error
    frame = pd.DataFrame(columns, index=range(table.num_rows))
    rows = np.arange(1, len(frame) + 1, dtype=np.int64)
    return RawTable(file, frame, rows, len(frame), tuple(problems))


def _series(name: str, column: pa.ChunkedArray) -> pd.Series:
    kind = column.type
    if kinds.is_dictionary(kind):
        return _series(name, column.cast(kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        return _series(name, column.cast(kind.storage_type))
    if kinds.is_struct(kind) and "path" in kind.names:  # a picture of Hugging Face datasets
        paths = [chunk.field("path") for chunk in column.chunks]
        return _series(name, pa.chunked_array(paths, kind.field("path").type))
    if kinds.is_nested(kind):
        return pd.Series([join_values(name, cell) for cell in column.to_pylist()], dtype="str")
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        column = _text(column.cast(pa.large_binary()))
    elif kinds.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif kinds.is_decimal(kind) or kinds.is_time(kind) or kinds.is_duration(kind):
        column = column.cast(pa.string())
    return column.to_pandas(types_mapper=_NULLABLE.get if column.null_count else None)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        cells = column.to_pylist()
    try:
        return pa.chunked_array([[cell and str(uuid.UUID(bytes=cell)) for cell in cells]])
    except ValueError:
        reason = "it holds bytes, not text; of a picture, give the path of its file"
        raise ValueError(reason) from None


_GZIP = b"\x1f\x8b"
_CSV = "save the sheet as CSV UTF-8"
_KINDS = {
    b"\xd0\xcf\x11\xe0": f"an Excel workbook of the old kind: {_CSV}",
    b"%PDF": "a PDF: export a table",
    b"ARROW1": "an Arrow file (Feather): write Parquet",
    b"ORC": "an ORC file: write Parquet",
    b"Obj\x01": "an Avro file: write Parquet",
    b"SQLite format 3": "a SQLite database: export its table as CSV",
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    _GZIP: "compressed twice: unpack it",
}
"""First bytes of unsupported formats → name and advice."""
_IDS = {"id", "user_id", "item_id", "basket_id"}
_LEAST_UNPACKED = 2**28
_MOST_GROWTH = 100
"""A gzip file may unpack to these bytes, or to this multiple of its size if that is more."""


def read_table(path: Path, kind: str) -> RawTable:
    """Read a file of ``items``, ``events`` or ``baskets`` with canonical column names."""
    try:
        with path.open("rb") as handle:
            start = handle.read(4)
            handle.seek(0)
            table = read_parquet(path.name, handle) if start == b"PAR1" else _read_bytes(path)
    except OSError as error:
        raise CatalogError(f"cannot read {path}: {error.strerror or error}") from error
    return apply_names(table, kind)


def _read_bytes(path: Path) -> RawTable:
    data = path.read_bytes()
    if data.startswith(_GZIP):
        data = _unpack(path, data)
    if not data:
        raise CatalogError(f"{path} is empty: it needs at least a header")
    if data.startswith(b"PAR1"):
        return read_parquet(path.name, io.BytesIO(data))
    what = _zipped(data) if data.startswith(b"PK\x03\x04") else None
    if what := what or next((_KINDS[mark] for mark in _KINDS if data.startswith(mark)), None):
        raise CatalogError(f"{path} is {what}")
    text, encoding = decode(str(path), data)
    table = _read_text(path, text)
    if encoding:
        note = f"{path.name}: read as {encoding}; save it as UTF-8 if letters are wrong"
        table = replace(table, notes=(note, *table.notes))
    return table


def _read_text(path: Path, text: str) -> RawTable:
    ends = [end.lower() for end in path.suffixes if end.lower() != ".gz"]
    if ends and ends[-1] == ".parquet":
        raise CatalogError(f"{path} is not a parquet file")
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        raise CatalogError(f"{path} is an HTML page, such as a login or an error: export it again")
    if start.startswith("<"):
        return read_feed(path.name, text)
    if start.startswith(("{", "[")):
        return read_json(path.name, text)
    delimiter = "\t" if ends and ends[-1] in {".tsv", ".txt"} else ","
    table = read_delimited(path.name, text, delimiter)
    for column in _IDS & set(table.frame):
        # `./run export` guards ids. Few files have such a cell, so a quick check first.
        if table.frame[column].str.startswith("'").any():
            table.frame[column] = table.frame[column].map(unguard_formula)
    return table


def _unpack(path: Path, data: bytes) -> bytes:
    limit = max(_LEAST_UNPACKED, _MOST_GROWTH * len(data))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            plain = packed.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CatalogError(f"{path} is gzip that is broken or cut short: {error}") from error
    if len(plain) > limit:
        raise CatalogError(f"{path} unpacks to more than {limit:,} bytes")
    return plain


def _zipped(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return f"a zip archive or an Excel workbook, and broken: {_CSV}"
    if any(name.startswith("xl/") for name in names):
        return f"an Excel workbook: {_CSV}"
    if "content.xml" in names:
        return f"an OpenDocument spreadsheet: {_CSV}"
    listed = ", ".join(names[:3])
    return f"a zip archive: unpack it ({listed})" if names else "an empty zip archive"
