"""Writes the feedback as a catalogue's events, so that the next training reads it.

Reads records back, oldest first, a page at a time: no transaction stays open between.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Table, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.catalog.schema import EVENT_COLUMNS, guard_formula
from newshelf.errors import SettingsError
from newshelf.files import write_aside
from newshelf.store import schema
from newshelf.store.database import Database
from newshelf.store.records import VARIANTS, Exposure
from newshelf.store.rows import exposure, from_us

_PAGE_ROWS = 5000


@dataclass(frozen=True)
class StoredFeedback:
    """An event with the answer that it was joined to."""

    event_id: str
    event_type: str
    item_id: str
    at: datetime
    unit: str
    value: float | None
    request_id: str | None
    """None, like all that follows, when no answer showed the product."""
    rollout: str | None
    variant: str | None
    position: int | None
    """From 1, of the product in the answer."""
    source: str | None
    """Of the product in the answer."""


def read_exposures(database: Database, rollout: str | None) -> Iterator[Exposure]:
    """All answers, or those of one rollout, in the order in which they were stored."""
    for row in _rows(database, schema.exposures, rollout):
        yield exposure(row)


def read_feedback(database: Database, rollout: str | None) -> Iterator[StoredFeedback]:
    """All events, or those of one rollout, in the order in which they were stored."""
    for row in _rows(database, schema.feedback, rollout):
        values = {**row._mapping, "at": from_us(row.at_us)}
        yield StoredFeedback(**{name: values[name] for name in StoredFeedback.__dataclass_fields__})


def last_answer_at(connection: Connection, rollout: str) -> datetime | None:
    """When a rollout's split answered last; None before its first answer."""
    answer = schema.exposures.c
    last = select(func.max(answer.at_us)).where(answer.rollout == rollout)
    # By variant, as the index is: over all of them it would look at every answer.
    moments = [connection.scalar(last.where(answer.variant == variant)) for variant in VARIANTS]
    return max((from_us(at_us) for at_us in moments if at_us is not None), default=None)


def _rows(database: Database, table: Table, rollout: str | None) -> Iterator[Any]:
    last = 0
    only: list[ColumnElement[bool]] = [] if rollout is None else [table.c.rollout == rollout]
    while True:
        query = select(table).where(table.c.id > last, *only).order_by(table.c.id)
        with database.reading() as connection:
            rows = connection.execute(query.limit(_PAGE_ROWS)).all()
        yield from rows
        if len(rows) < _PAGE_ROWS:
            return
        last = rows[-1].id


_CHUNK_ROWS = 50_000
_Row = tuple[str, str, str, int]
_TYPES = (pa.string(), pa.string(), pa.string(), pa.int64())
_SCHEMA = pa.schema(zip(EVENT_COLUMNS, _TYPES, strict=True))


def write_events(events: Iterable[StoredFeedback], path: Path) -> int:
    """Write events to ``path``, aside and renamed.

    Args:
        events: what shoppers did.
        path: ``.parquet``, ``.csv`` or ``.tsv``; named ``events`` and put into a catalogue's
            folder, it is read with it.

    Returns:
        The number of events.

    Raises:
        SettingsError: another suffix.
    """
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
                # Shoppers' clients choose the ids, and people open the file in a spreadsheet.
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
