"""Tables in text: detection of encodings, delimited text, JSON lines and XML feeds.

Delimited text is parsed with the standard library's ``csv``, which knows the line of each record,
so that reports name the right row even after quoted line breaks.
"""

import codecs
import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import islice
from typing import Any

import chardet

from newshelf.catalog.names import is_known, join_values
from newshelf.catalog.report import Problem, RawTable, make_table
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
