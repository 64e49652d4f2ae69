"""Recorded feedback for training, and event files in the catalogue's format that it is added to."""

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from newshelf.catalog.schema import EVENT_COLUMNS, guard_formula, unguard_formula
from newshelf.errors import SettingsError
from newshelf.files import write_aside
from newshelf.store.records import StoredFeedback
from newshelf.store.store import EventStore

EVENT_ID = "event_id"
"""Column of the recorded events' ids, next to those of the catalogue's events."""
_CHUNK_ROWS = 50_000
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TEXTS = (*EVENT_COLUMNS[:3], EVENT_ID)
_SCHEMA = pa.schema(
    [(name, pa.string() if name in _TEXTS else pa.int64()) for name in (*EVENT_COLUMNS, EVENT_ID)]
)
_LATEST_SECOND = 4_102_444_800


def recorded_events(store: EventStore) -> Iterator[StoredFeedback]:
    """Yield the feedback that training may learn from, in the order it was stored.

    Without erased units, whose last rows may be in the database until their erasure ends.
    """
    for event in store.feedback():
        if not store.units.erased([event.unit]):
            yield event


class KnownEvents:
    """Events that are there already, by event id or, without one, by row."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._rows: set[tuple[str, str, str, int]] = set()

    def add(self, row: tuple[str, str, str, int], event_id: str | None) -> None:
        """Add an event: unit, product, type and epoch seconds, with its id if it has one."""
        if event_id:
            self._ids.add(event_id)
        else:
            self._rows.add(row)

    def new(self, events: Iterable[StoredFeedback]) -> Iterator[tuple[str, str, str, int, str]]:
        """Yield the rows, with event id, of the events that are not there."""
        for event in events:
            row = (event.unit, event.item_id, event.event_type, int(event.at.timestamp()))
            if event.event_id not in self._ids and row not in self._rows:
                yield *row, event.event_id


def write_events(events: Iterable[StoredFeedback], path: Path) -> int:
    """Add events to a ``.parquet``, ``.csv`` or ``.tsv`` file; return the number of new ones.

    The rows of an existing file stay as they are; the file is replaced atomically.

    Raises:
        SettingsError: another suffix, or a file that cannot be added to, which stays.
    """
    if path.suffix != ".parquet" and path.suffix not in _DELIMITERS:
        known = " or ".join((".parquet", *_DELIMITERS))
        raise SettingsError(f"cannot write events to {path}: name it {known}")
    with write_aside(path) as aside:
        try:
            if path.suffix == ".parquet":
                return _write_parquet(events, path, aside)
            return _write_text(events, path, aside, _DELIMITERS[path.suffix])
        except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
            _refuse(path, f"it cannot be read: {error}", error)


def _refuse(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    raise SettingsError(
        f"{path} stays as it is, and the events are not written: {why}. Name another file, or "
        f"convert this one: ./run catalog check FOLDER --out NEW"
    ) from cause


def _write_parquet(events: Iterable[StoredFeedback], path: Path, aside: Path) -> int:
    known, written = KnownEvents(), 0
    schema = pq.read_schema(path).remove_metadata() if path.exists() else _SCHEMA
    _require_columns(path, schema.names)
    for name in EVENT_COLUMNS:
        kind = schema.field(name).type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (is_text if name in _TEXTS else pa.types.is_integer(kind)):
            _refuse(path, f"its column {name} is of type {kind}")
    if EVENT_ID not in schema.names:
        schema = schema.append(_SCHEMA.field(EVENT_ID))
    with pq.ParquetWriter(aside, schema) as writer:
        for batch in pq.ParquetFile(path).iter_batches() if path.exists() else ():
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            if EVENT_ID not in table.column_names:
                table = table.append_column(EVENT_ID, pa.nulls(len(table), pa.string()))
            for row in table.select(_SCHEMA.names).to_pylist():
                _add(known, path, row)
            writer.write_table(table)
        new = known.new(events)
        while chunk := list(islice(new, _CHUNK_ROWS)):
            named = [dict(zip(_SCHEMA.names, row, strict=True)) for row in chunk]
            writer.write_table(pa.Table.from_pylist(named, schema))
            written += len(chunk)
    return written


def _write_text(events: Iterable[StoredFeedback], path: Path, aside: Path, delimiter: str) -> int:
    known, written = KnownEvents(), 0
    header = list(_SCHEMA.names)
    with aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        if path.exists():
            with path.open(encoding="utf-8-sig", newline="") as old:
                reader = csv.DictReader(old, delimiter=delimiter, strict=True)
                found = list(reader.fieldnames or ())
                _require_columns(path, found)
                header = found if EVENT_ID in found else [*found, EVENT_ID]
                writer.writerow(header)
                for row in reader:
                    if None in row or None in row.values():
                        _refuse(path, f"line {reader.line_num} has not {len(found)} cells")
                    _add(known, path, {name: unguard_formula(row[name]) for name in row})
                    writer.writerow([row.get(name, "") for name in header])
        else:
            writer.writerow(header)
        for new in known.new(events):
            # Clients choose the ids, and people open the file in a spreadsheet.
            cells = [cell if type(cell) is int else guard_formula(str(cell)) for cell in new]
            named = dict(zip(_SCHEMA.names, cells, strict=True))
            writer.writerow([named.get(name, "") for name in header])
            written += 1
    return written


def _require_columns(path: Path, found: list[str]) -> None:
    if missing := [name for name in EVENT_COLUMNS if name not in found]:
        _refuse(path, f"it has the columns {', '.join(found)}, without {', '.join(missing)}")


def _add(known: KnownEvents, path: Path, row: dict[str, Any]) -> None:
    try:
        seconds = int(row["timestamp"])
    except (TypeError, ValueError):
        seconds = -1
    if not 0 <= seconds < _LATEST_SECOND:
        _refuse(path, f"its timestamp {row['timestamp']} is no time in epoch seconds")
    known.add((row["user_id"], row["item_id"], row["event_type"], seconds), row.get(EVENT_ID))
