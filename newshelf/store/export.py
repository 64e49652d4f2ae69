"""Event files: feedback in the catalogue's events format, for the next training."""

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from newshelf.catalog.schema import EVENT_COLUMNS, guard_formula
from newshelf.errors import SettingsError
from newshelf.files import write_aside
from newshelf.store.records import StoredFeedback

_CHUNK_ROWS = 50_000
_Row = tuple[str, str, str, int]
_TYPES = (pa.string(), pa.string(), pa.string(), pa.int64())
_SCHEMA = pa.schema(zip(EVENT_COLUMNS, _TYPES, strict=True))


def write_events(events: Iterable[StoredFeedback], path: Path) -> int:
    """Write a ``.parquet``, ``.csv`` or ``.tsv`` file atomically; return the number of events."""
    write = _WRITERS.get(path.suffix)
    if write is None:
        raise SettingsError(f"cannot write events to {path}: name it {' or '.join(_WRITERS)}")
    with write_aside(path) as aside:
        return write(map(_row, events), aside)


def _row(event: StoredFeedback) -> _Row:
    return event.unit, event.item_id, event.event_type, int(event.at.timestamp())


def _write_parquet(rows: Iterable[_Row], path: Path) -> int:
    written = 0
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for chunk in _chunks(iter(rows)):
            cells = zip(zip(*chunk, strict=True), _TYPES, strict=True)
            columns = [pa.array(column, kind) for column, kind in cells]
            writer.write_table(pa.table(columns, schema=_SCHEMA))
            written += len(chunk)
    return written


def _write_text(delimiter: str) -> Callable[[Iterable[_Row], Path], int]:
    def write(rows: Iterable[_Row], path: Path) -> int:
        written = 0
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            writer.writerow(EVENT_COLUMNS)
            for unit, item_id, event_type, timestamp in rows:
                # Clients choose the ids, and people open the file in a spreadsheet.
                ids = guard_formula(unit), guard_formula(item_id)
                writer.writerow((*ids, event_type, timestamp))
                written += 1
        return written

    return write


def _chunks(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield chunk


_WRITERS: dict[str, Callable[[Iterable[_Row], Path], int]] = {
    ".parquet": _write_parquet,
    ".csv": _write_text(","),
    ".tsv": _write_text("\t"),
}
