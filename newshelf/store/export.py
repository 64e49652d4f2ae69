"""Recorded feedback for training, and event files in the catalogue's format that it is added to."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from newshelf.catalog.robots import quarantined
from newshelf.catalog.schema import EVENT_COLUMNS, guard_formula, unguard_formula
from newshelf.config import RobotSettings
from newshelf.errors import SettingsError
from newshelf.files import write_aside
from newshelf.store.records import StoredFeedback
from newshelf.store.store import EventStore

EVENT_ID = "event_id"
"""Column of the recorded events' ids, next to those of the catalogue's events."""
EventRow = tuple[str, str, str, int, str]
"""Unit, product, type, epoch seconds, and event id: empty for a shop's own event."""
_DELIMITERS = {".parquet": "", ".csv": ",", ".tsv": "\t"}
_NAMES = (*EVENT_COLUMNS, EVENT_ID)
_TYPES = (pa.string(), pa.string(), pa.string(), pa.int64(), pa.string())
_SCHEMA = pa.schema(zip(_NAMES, _TYPES, strict=True))
_LATEST_SECOND = 4_102_444_800


def recorded_events(
    store: EventStore, robots: RobotSettings | None = None
) -> Iterator[StoredFeedback]:
    """Yield the feedback that training may learn from, in the order it was stored.

    Without erased units, whose last rows may be in the database until their erasure ends, and
    without those in quarantine, which are kept and come with a later call if released.
    """
    left_out = quarantined(store.units.suspects(robots) if robots else ())
    for event in store.feedback():
        source = event.unit, event.item_id, event.key_name, int(event.at.timestamp())
        if not left_out(*source) and not store.units.erased([event.unit]):
            yield event


def new_events(events: Iterable[StoredFeedback], known: Iterable[EventRow]) -> list[EventRow]:
    """Return the events that are not ``known`` by their id or, without one, by their row."""
    there = list(known)
    ids, rows = {row[4] for row in there if row[4]}, {row for row in there if not row[4]}
    found = []
    for event in events:
        row = (event.unit, event.item_id, event.event_type, int(event.at.timestamp()))
        if event.event_id not in ids and (*row, "") not in rows:
            found.append((*row, event.event_id))
    return found


def write_events(events: Iterable[StoredFeedback], path: Path) -> int:
    """Add events to a ``.parquet``, ``.csv`` or ``.tsv`` file; return the number of new ones.

    The rows of an existing file stay as they are; the file is replaced atomically. Raises
    ``SettingsError`` for another suffix, and for a file that cannot be added to.
    """
    delimiter = _DELIMITERS.get(path.suffix)
    if delimiter is None:
        raise SettingsError(f"cannot write events to {path}: name it {' or '.join(_DELIMITERS)}")
    try:
        old = _read(path, delimiter) if path.exists() else _SCHEMA.empty_table()
        new = new_events(events, _rows(old))
        # Clients choose the ids, and people open a text file in a spreadsheet.
        guard = guard_formula if delimiter else str
        cells = [(guard(one[0]), guard(one[1]), one[2], one[3], guard(one[4])) for one in new]
        named = [dict(zip(_NAMES, row, strict=True)) for row in cells]
        more = pa.Table.from_pylist(named, _SCHEMA)
        if delimiter:
            more = more.set_column(3, "timestamp", more["timestamp"].cast(old["timestamp"].type))
        table = pa.concat_tables([old, more], promote_options="permissive")
    except (pa.ArrowException, KeyError) as error:
        raise SettingsError(
            f"{path} stays as it is, and no event was added: {error}. Name another file, or "
            "convert this one with ./run catalog check FOLDER --out NEW"
        ) from error
    with write_aside(path) as aside:
        if delimiter:
            options = pa.csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
            pa.csv.write_csv(table, aside, options)
        else:
            pq.write_table(table, aside)
    return len(new)


def _read(path: Path, delimiter: str) -> pa.Table:
    if not delimiter:
        return pq.read_table(path).replace_schema_metadata(None)
    parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parsing) as opened:
        names = opened.schema.names
    texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return pa.csv.read_csv(path, parse_options=parsing, convert_options=texts)


def _rows(table: pa.Table) -> Iterator[EventRow]:
    """Yield a file's events; raise ``KeyError`` or pyarrow's errors if it has others."""
    seconds = table["timestamp"].cast(pa.int64()).to_pylist()
    if not all(second and 0 < second < _LATEST_SECOND for second in seconds):
        raise pa.ArrowInvalid("its column timestamp has other times than epoch seconds")
    texts = [table[name].cast(pa.string()).to_pylist() for name in EVENT_COLUMNS[:3]]
    has_ids = EVENT_ID in table.column_names
    event_ids = table[EVENT_ID].to_pylist() if has_ids else [""] * len(table)
    for unit, item, kind, second, event_id in zip(*texts, seconds, event_ids, strict=True):
        yield unguard_formula(unit), unguard_formula(item), kind, second, event_id or ""
