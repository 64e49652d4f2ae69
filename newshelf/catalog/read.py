"""Read one table of a catalogue, nothing decided yet about its cells.

What a file is, its bytes say; its name only says which table it is.
"""

import gzip
import io
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

from newshelf.catalog.find import EXTENSIONS, find_table
from newshelf.catalog.names import apply_names
from newshelf.catalog.parquet import read_parquet
from newshelf.catalog.schema import unguard_formula
from newshelf.catalog.table import Mapped, Table
from newshelf.catalog.text import decode, read_delimited, read_feed, read_json
from newshelf.errors import CatalogError

__all__ = ["EXTENSIONS", "Mapped", "Table", "find_table", "read_table"]

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
"""First bytes of what is not read → what it is, and what to do."""
_IDS = {"id", "user_id", "item_id", "basket_id"}
_LEAST_UNPACKED = 2**28
_MOST_GROWTH = 100
"""Bytes that a gzip file may unpack to, and how many times its own size where that is more."""


def read_table(path: Path, kind: str) -> Table:
    """Read a file of ``items``, ``events`` or ``baskets`` and give its columns our names.

    Raises:
        CatalogError: when the file as a whole cannot be read: empty, no table, of an
            encoding that cannot be told, or a column is repeated.
    """
    try:
        with path.open("rb") as handle:
            start = handle.read(4)
            handle.seek(0)
            table = read_parquet(path.name, handle) if start == b"PAR1" else _read_bytes(path)
    except OSError as error:
        raise CatalogError(f"cannot read {path}: {error.strerror or error}") from error
    return apply_names(table, kind)


def _read_bytes(path: Path) -> Table:
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


def _read_text(path: Path, text: str) -> Table:
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
        # Our own export guards ids. A quick look first: hardly a file has such a cell.
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
