"""Reading of a table file as raw cells: format and encoding by content, text, feeds and Parquet.

Delimited text is parsed with the standard library's ``csv``, which knows the line of each record,
so that reports name the right row even after quoted line breaks.
"""

import codecs
import csv
import gzip
import io
import json
import re
import uuid
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import chardet
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as kinds

from newshelf.catalog.names import apply_names, is_known, join_values
from newshelf.catalog.report import Problem, RawTable, make_table, refuse_repeated
from newshelf.catalog.schema import unguard_formula
from newshelf.errors import CatalogError

csv.field_size_limit(2**31 - 1)  # a description may hold a picture as a data: URL

_MARKS = {  # of UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LEGACY = (
    *(f"windows-125{page}" for page in range(9)),
    *("mac-roman", "cp850", "cp866", "koi8-r", "gb18030", "big5", "cp932", "euc-jp", "cp949"),
)
"""Legacy encodings that spreadsheets and shop systems write."""
_UNLIKELY = re.compile(
    "[\x80-\x9f]|[A-Za-z][\u0370-\u06ff]|[\u0370-\u06ff][A-Za-z]"  # two scripts in one word
)
_SAMPLE = 50_000
_MARGIN = 1.1
"""Factor by which the best guess must be more probable than others."""
_DELIMITERS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)
_LONGEST = 10_000
"""Maximum lines of a record; a longer one has an unclosed quote."""
_PROLOG = re.compile(r"(?:\s|<!--.*?-->|<\?.*?\?>)*", re.DOTALL)
_RUNNING_TEXT = frozenset({"title", "description", "summary", "content"})


def decode(file: str, data: bytes) -> tuple[str, str | None]:
    """Return the text without byte order marks, and the encoding unless it is UTF-8.

    Invalid bytes in text that is otherwise UTF-8 become lone surrogates.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if declared := re.match(rb"\s*<\?xml[^>]*?encoding=[\"']([\w.-]+)", data):
        encoding = declared[1].decode().lower()
    elif data[:2].count(0) == 1:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding)
    except (LookupError, UnicodeError) as error:
        if encoding != "utf-8":
            raise CatalogError(f"{file} is not the {encoding} that it says it is") from error
        text, encoding = _decode_legacy(file, data)
    return text.lstrip("\ufeff"), None if encoding == "utf-8" else encoding


def _decode_legacy(file: str, data: bytes) -> tuple[str, str]:
    text = data.decode("utf-8", errors="surrogateescape")
    damaged = re.findall("[\udc80-\udcff]", text)
    if len(re.findall("[\u0080-\ud7ff\ue000-\U0010ffff]", text)) > 4 * len(damaged):
        return text, "utf-8"
    # Lines in ASCII do not help, and there may be millions.
    sample = b"".join(line for line in io.BytesIO(data) if not line.isascii())[:_SAMPLE]
    found: dict[str, str] = {}
    best = 0.0
    for guess in chardet.detect_all(sample, ignore_threshold=True, include_encodings=_LEGACY):
        encoding = str(guess["encoding"])
        if guess["confidence"] * _MARGIN < best:
            break
        try:
            read = data.decode(encoding)
        except (LookupError, UnicodeError):
            continue
        if not _UNLIKELY.search(read):
            found.setdefault(read, encoding)
            best = best or guess["confidence"]
    if len(found) == 1:
        return found.popitem()
    line = text.count("\n", 0, text.index(damaged[0])) + 1
    maybe = f", and may be {' or '.join(found.values())}" if found else ""
    raise CatalogError(
        f"{file} line {line}: the text is not UTF-8{maybe}: save it as UTF-8 (in Excel: CSV UTF-8)"
    )


def read_delimited(file: str, text: str, default: str) -> RawTable:
    """Read CSV, TSV and similar text; use the delimiter ``default`` if it cannot be detected."""
    lines = io.StringIO(text, newline="").readlines()
    first = next((place for place, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise CatalogError(f"{file} holds blank lines only: it needs at least a header")
    separator_line = _SEP_LINE.fullmatch(lines[first])
    first += bool(separator_line)
    if first == len(lines) or "\0" in lines[first]:
        raise CatalogError(f"{file} has no header, or is no text")

    def header(delimiter: str) -> tuple[list[str], int]:
        reader = csv.reader(islice(lines, first, first + _LONGEST), delimiter=delimiter)
        plain = (name.encode(errors="replace").decode() for name in next(reader))
        return [name.strip("\ufeff\u00a0 \t") for name in plain], reader.line_num

    def rank(delimiter: str) -> tuple[int, bool, int]:
        names = header(delimiter)[0]
        known = sum(map(is_known, names))
        return known, delimiter == default and len(names) > 1, len(names)

    delimiter = separator_line[1] if separator_line else max((default, *_DELIMITERS), key=rank)
    names, length = header(delimiter)
    quoted = lines[first].startswith('"') and lines[first].rstrip().endswith('"')
    records, starts, bad = _records(
        lines, first + length, delimiter, len(names), trust_quotes=quoted or delimiter != "\t"
    )
    while starts and not lines[starts[-1] - 1].strip(f"{delimiter} \r\n"):
        records.pop(), starts.pop()  # trailing rows of delimiters, as spreadsheets write
    problems = [Problem(file, line, None, reason) for line, reason in bad]
    cells = zip(*records, strict=True) if records else [()] * len(names)
    columns = list(zip(names, cells, strict=True))
    notes, named = [], []
    for place, (name, column) in enumerate(columns):
        if name and (name not in names[:place] or is_known(name)):
            named.append((name, column))
        elif any(column):
            why = f"has the name {name!r} again" if name else "has no name"
            notes.append(f"{file}: column {place + 1} {why} and is left out")
    return make_table(file, named, starts, problems, notes)


def _records(
    lines: list[str], start: int, delimiter: str, width: int, *, trust_quotes: bool
) -> tuple[list[list[str]], list[int], list[tuple[int, str]]]:
    """Return records of ``width`` fields, their first lines, and bad records with reasons.

    If CSV rules give no record of that width, or a quote in a TSV spans lines that are records,
    the line is parsed alone, so that a stray quote costs one row.
    """
    records: list[list[str]] = []
    starts: list[int] = []
    bad: list[tuple[int, str]] = []
    at = start

    def feed() -> Iterator[str]:
        nonlocal at
        while at < len(lines) and at - start < _LONGEST:
            at += 1
            yield lines[at - 1]

    while start < len(lines):
        record: list[str] = []
        at = start
        try:
            for record in csv.reader(feed(), delimiter=delimiter, strict=True):
                if record:  # a blank line is no record
                    if len(record) != width or (at - start > 1 and not trust_quotes):
                        break
                    records.append(record)
                    starts.append(start + 1)
                start = at
            else:
                break
            broken = any(len(_fields(line, delimiter)) == width for line in lines[start + 1 : at])
        except csv.Error:
            broken = True
        if broken:
            record, at = _fields(lines[start], delimiter), start + 1
        if not any(record[width:]):
            record = record[:width]
        if len(record) != width:
            bad.append((start + 1, f"{len(record)} fields where the header has {width}"))
        elif broken and delimiter != "\t" and any(cell.count('"') % 2 for cell in record):
            bad.append((start + 1, "a quote is not closed: double those within a cell"))
        else:
            records.append(record)
            starts.append(start + 1)
        start = at
    return records, starts, bad


def _fields(line: str, delimiter: str) -> list[str]:
    """Return the fields of one line; quotes are text unless a pair encloses the field."""
    fields = line.rstrip("\r\n").split(delimiter)
    pairs = (re.fullmatch('"((?:[^"]|"")*)"', field) for field in fields)
    return [
        found[1].replace('""', '"') if found else field
        for field, found in zip(fields, pairs, strict=True)
    ]


def read_json(file: str, text: str) -> RawTable:
    """Read one object a line, or an array of objects. Numbers keep their spelling."""
    array = _parse_json(text) if text.lstrip().startswith("[") else None
    lines = array if isinstance(array, list) else map(_parse_json, io.StringIO(text))
    rows: dict[int, dict[str, Any]] = {}
    problems = []
    for number, row in enumerate(lines, start=1):
        if isinstance(row, dict):
            rows[number] = row
        elif row != "":
            problems.append(Problem(file, number, None, "is no JSON object"))
    if not rows:
        raise CatalogError(f"{file} is no JSON that can be read: write one object a line")
    columns = []
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        try:
            columns.append((name, [join_values(name, row.get(name)) for row in rows.values()]))
        except ValueError as error:
            problems.append(Problem(file, None, name, str(error), "cell"))
    return make_table(file, columns, list(rows), problems)


def _parse_json(text: str) -> Any:
    """Return the value, None for invalid JSON, and "" for a blank line."""
    try:
        return text.strip() and json.loads(
            text, parse_int=str, parse_float=str, parse_constant=lambda _: None
        )
    except (ValueError, RecursionError):
        return None


def read_feed(file: str, text: str) -> RawTable:
    """Read a Merchant feed, RSS or Atom without a DTD; rows are its items, counted from 1."""
    prolog = _PROLOG.match(text)
    body = text[prolog.end() if prolog else 0 :]
    if body[:9].lower() == "<!doctype":
        raise CatalogError(f"{file} has a document type declaration (DTD): remove it")
    records: list[dict[str, str]] = []
    source = io.BytesIO(body.encode(errors="replace"))
    try:
        for _, element in ET.iterparse(source):  # noqa: S314 - no DTD, no entities
            if _local(element.tag) in {"item", "entry"}:
                records.append(_feed_item(element))
                element.clear()
    except ET.ParseError as error:
        raise CatalogError(f"{file} is XML that is broken: {error}") from error
    if not records:
        raise CatalogError(
            f"{file} is XML without <item> or <entry>: Merchant feeds, RSS or Atom, are read"
        )
    names = dict.fromkeys(name for record in records for name in record)
    columns = [(name, [record.get(name, "") for record in records]) for name in names]
    return make_table(file, columns, range(1, len(records) + 1))


def _feed_item(item: ET.Element) -> dict[str, str]:
    record: dict[str, str] = {}
    # g:id and g:title take precedence over the id and title of the page.
    for child in sorted(item, key=lambda child: "base.google.com" not in str(child.tag)):
        name = _local(child.tag)
        if not len(child) or name in _RUNNING_TEXT:  # others: shipping, taxes
            record.setdefault(name, "".join(child.itertext()).strip() or child.get("href", ""))
    return record


def _local(tag: object) -> str:
    return str(tag).rpartition("}")[2]


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
