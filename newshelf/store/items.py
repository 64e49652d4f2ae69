"""Live products: their latest state, its order of changes, their pictures and their vectors.

Every change gets the next number, ``seq``. Writers hold a lock until they commit, so a reader that
has seen one number has seen all smaller ones. A product keeps only its last change.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from sqlalchemy import Select, and_, delete, func, literal, select
from sqlalchemy.engine import Connection

from newshelf.catalog.clean import clean_text
from newshelf.catalog.schema import ITEM_COLUMNS, Id, Product, trim
from newshelf.errors import BadPicture, InvalidField, UnknownItem
from newshelf.store.database import Database, lock
from newshelf.store.schema import (
    encoded,
    from_us,
    insert_new,
    items,
    now_us,
    parts,
    pictures,
    replacing,
    shelves,
    span_us,
    to_us,
)

MAX_TEXT_CHARS = 10_000
MAX_ATTRIBUTES = 50
_MAX_NAME_CHARS = 100
_LATEST_SECOND = 4_102_444_800
_LARGEST = 2**53
"""Integers up to here are the same number in JSON, SQL and Python."""
_LOCK = 0x6E657774
"""Lock of the writers of products: one commits before the next takes numbers."""
_TEXTS = ("title", "description", "product_type", "brand", "color", "material", "size")
_SILENT_S = 60.0
"""Seconds after which a host that publishes nothing does not count as serving."""

_Raw = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Text = Annotated[_Raw, AfterValidator(lambda text: clean_text(text) or None)]
"""Without markup; None if nothing else was there."""


def _name(name: str) -> str:
    cleaned = trim(name)
    if not 0 < len(cleaned) <= _MAX_NAME_CHARS or not cleaned.isprintable():
        raise ValueError(f"a name has 1 to {_MAX_NAME_CHARS} printable characters")
    if cleaned in (*ITEM_COLUMNS, "image", "attributes"):
        raise ValueError(f"{cleaned} is a field of the product itself")
    return cleaned


class ItemColumns(Product):
    """A product's columns: the canonical ones, and further ones as ``attributes``."""

    id: Id
    title: Text | None = None
    description: Text | None = None
    product_type: Text | None = None
    brand: Text | None = None
    color: Text | None = None
    material: Text | None = None
    size: Text | None = None
    availability: Literal["in_stock", "out_of_stock", "preorder", "backorder"] | None = None
    created_at: Annotated[int, Field(ge=0, le=_LATEST_SECOND)] | None = None
    """Epoch seconds; by default the time when the product was first stored."""
    attributes: Annotated[
        dict[
            Annotated[str, AfterValidator(_name)],
            Annotated[_Raw, AfterValidator(clean_text)]
            | Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]
            | Annotated[float, Field(allow_inf_nan=False)],
        ],
        Field(max_length=MAX_ATTRIBUTES),
    ] = Field(default={})
    """Further columns, such as ``season``."""


@dataclass(frozen=True)
class ItemWrite:
    """A product to be stored as a whole."""

    columns: ItemColumns
    picture: bytes | Path | None = None
    """Its bytes, or a file of this host that stays where it is."""


@dataclass(frozen=True)
class StoredItem:
    """A product in the store."""

    columns: ItemColumns
    picture: str | None
    """``sha256:HEX`` or ``file:/PATH``."""
    revision: int
    """From 1; grows by one with each change of the product."""
    seq: int
    """Place of its last change among all changes; 0 for a seeded product without any."""
    deleted: bool
    updated_at: datetime
    seeded: str | None = None
    """``inputs`` when it was seeded from a catalogue; None for products that came later."""

    @property
    def id(self) -> str:
        """Return the product's id."""
        return self.columns.id

    @property
    def inputs(self) -> str:
        """Return the SHA-256 of texts and picture: all that the encoder reads but the price."""
        return _inputs(self.columns, self.picture)


@dataclass(frozen=True)
class EncodedItem:
    """Vectors of a product's revision by the encoder of a model version."""

    item_id: str
    revision: int
    seq: int
    """The product's, when it was encoded."""
    inputs: str
    """Digest of all that the encoder read."""
    embedding: NDArray[np.float32] | None
    """``(512,)`` float32; None when the product could not be encoded."""
    vector: NDArray[np.float32] | None
    """``(P,)`` float32; None without a scorer."""
    problem: str | None = None
    """Why the picture, or the whole product, could not be encoded."""


@dataclass(frozen=True)
class ItemState:
    """Progress of a model version with a product's last change."""

    version: str
    encoded: bool
    visible: bool
    """In the answers of the workers of every host."""
    problem: str | None


@dataclass(frozen=True)
class Shelf:
    """Up to which change a host's workers know the products."""

    host: str
    version: str
    seq: int
    at: datetime


class ItemRepository:
    """Products in a database. Every method is one transaction, unless it says otherwise."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, writes: Sequence[ItemWrite]) -> list[StoredItem]:
        """Store products as a whole, or none; equal content keeps its revision and seq."""
        if not writes:
            return []
        with self._writing() as change:
            change.load([write.columns.id for write in writes])
            return [
                change.put(write.columns, change.picture(write.picture), at=f"items[{place}]")
                for place, write in enumerate(writes)
            ]

    def patch(
        self, item_id: str, fields: Mapping[str, object], picture: bytes | None = None
    ) -> StoredItem:
        """Change some fields of a product; ``None`` removes an optional one.

        ``attributes`` are merged one by one; ``image`` may only be None, which removes the picture.
        ``picture`` replaces the picture; None keeps it.
        """
        with self._writing() as change:
            change.load([item_id])
            old = change.existing(item_id)
            if old.deleted:
                raise _unknown(item_id)
            kept = change.picture(picture) or (None if "image" in fields else old.picture)
            return change.put(_merged(old.columns, fields), kept)

    def delete(self, item_id: str) -> StoredItem:
        """Delete a product; a deleted one stays as it is."""
        with self._writing() as change:
            change.load([item_id])
            return change.delete(item_id)

    def get(self, ids: Sequence[str]) -> dict[str, StoredItem]:
        """Return the products that exist or were deleted, by id."""
        with self._database.reading() as connection:
            return _by_id(connection, ids)

    def page(self, after_id: str = "", limit: int = 100) -> list[StoredItem]:
        """Return products that are not deleted in the order of ids, from after ``after_id``."""
        query = select(items).where(items.c.id > after_id, ~items.c.deleted)
        return self._items(query.order_by(items.c.id).limit(limit))

    def changes(self, after_seq: int, limit: int = 1_000) -> list[StoredItem]:
        """Return products that changed after ``after_seq``, in that order; deleted ones too."""
        return self._items(
            select(items).where(items.c.seq > after_seq).order_by(items.c.seq).limit(limit)
        )

    def last_seq(self) -> int:
        """Return the number of the last change; 0 before the first."""
        with self._database.reading() as connection:
            return _last_seq(connection)

    def seq_before(self, at: datetime) -> int:
        """Return the number of the last change before a moment; 0 without any."""
        query = select(func.max(items.c.seq)).where(items.c.updated_us < to_us(at))
        with self._database.reading() as connection:
            return connection.scalar(query) or 0

    def ids(self, *, unchanged: bool = False) -> list[str]:
        """Return the ids of all products, or of those that have not changed since seeding."""
        query = select(items.c.id)
        with self._database.reading() as connection:
            return list(connection.scalars(query.where(items.c.seq == 0) if unchanged else query))

    def count_after(self, seq: int) -> int:
        """Return the number of products that changed after ``seq``."""
        query = select(func.count()).select_from(items).where(items.c.seq > seq)
        with self._database.reading() as connection:
            return connection.scalar(query) or 0

    def seed(self, writes: Iterable[ItemWrite]) -> int:
        """Store products of a catalogue whose ids are absent, as no change; return their number."""
        added = 0
        remaining = iter(writes)
        while batch := list(islice(remaining, _SEED_ROWS)):
            with self._database.writing() as connection:
                lock(connection, _LOCK)
                now = int(connection.execute(select(now_us())).scalar_one())
                rows = sorted(_seed_row(write, now) for write in batch)
                added += len(insert_new(connection, items, _SEED_COLUMNS, rows, returning="id"))
        return added

    def picture(self, sha256: str) -> bytes | None:
        """Return a picture's bytes; None if the store does not have it."""
        with self._database.reading() as connection:
            return connection.scalar(select(pictures.c.bytes).where(pictures.c.sha256 == sha256))

    def read_picture(self, reference: str, max_bytes: int) -> bytes:
        """Return a product's picture, or raise ``BadPicture``; a larger file is not read."""
        kind, _, place = reference.partition(":")
        if kind != "sha256":
            return read_picture_file(reference, max_bytes)
        stored = self.picture(place)
        if stored is None:
            raise BadPicture("the picture is not in the store any more")
        return stored

    def remove_unused_pictures(self) -> int:
        """Delete the pictures that no product has any more. Return their number."""
        used = select(literal(1)).where(items.c.picture == "sha256:" + pictures.c.sha256)
        with self._database.writing() as connection:
            lock(connection, _LOCK)
            return connection.execute(delete(pictures).where(~used.exists())).rowcount

    def put_encoded(self, version: str, rows: Sequence[EncodedItem]) -> None:
        """Store vectors of a model version; a later revision's row is never replaced."""
        if not rows:
            return
        values = [
            vars(row)
            | {"version": version}
            | {name: _bytes(getattr(row, name)) for name in ("embedding", "vector")}
            for row in sorted(rows, key=lambda row: row.item_id)
        ]
        with self._database.writing() as connection:
            replace = replacing(connection.dialect.name, encoded, in_order_of="seq")
            connection.execute(replace, values)

    def encoded(
        self, version: str, after_seq: int = 0, limit: int = 1_000, *, ids: Sequence[str] = ()
    ) -> list[tuple[StoredItem, EncodedItem | None]]:
        """Return products that changed after ``after_seq``, or ``ids``, with their last vectors."""
        same = and_(encoded.c.item_id == items.c.id, encoded.c.version == version)
        query = select(items, *_ENCODED_COLUMNS).select_from(items.outerjoin(encoded, same))
        query = query.where(items.c.id.in_(ids) if ids else items.c.seq > after_seq)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(items.c.seq, items.c.id).limit(limit))
            return [(_item(row), _encoded(row)) for row in rows]

    def published(self, host: str, version: str, seq: int) -> None:
        """Record that the workers of a host know all changes up to ``seq``."""
        with self._database.writing() as connection:
            row = {"host": host, "version": version, "seq": seq, "at_us": now_us()}
            connection.execute(replacing(connection.dialect.name, shelves).values(row))

    def hosts(self) -> list[Shelf]:
        """Return what every host has published, by version, of the last minute."""
        with self._database.reading() as connection:
            return _hosts(connection)

    def lags(self, host: str) -> dict[str, float]:
        """Return the age in seconds of the oldest change that a host has not published, by version.

        0 without any; of the versions that its shelf kept when it was last alive.
        """
        alive_us = select(func.max(shelves.c.at_us)).where(shelves.c.host == host)
        since_us = alive_us.scalar_subquery() - span_us(_SILENT_S)
        later = select(items.c.updated_us).where(items.c.seq > shelves.c.seq)
        oldest_us = later.order_by(items.c.seq).limit(1).scalar_subquery()
        lag_us = func.coalesce(now_us() - oldest_us, 0)
        query = select(shelves.c.version, lag_us).where(
            shelves.c.host == host, shelves.c.at_us > since_us
        )
        with self._database.reading() as connection:
            return {version: lag / 1e6 for version, lag in connection.execute(query)}

    def forget_version(self, version: str) -> None:
        """Delete the vectors of a version that is not served any more."""
        with self._database.writing() as connection:
            connection.execute(delete(encoded).where(encoded.c.version == version))
            connection.execute(delete(shelves).where(shelves.c.version == version))

    def states(self, item_id: str) -> list[ItemState]:
        """Return the state of a product's last change by version that is served."""
        with self._database.reading() as connection:
            item = _by_id(connection, [item_id]).get(item_id)
            if item is None:
                raise _unknown(item_id)
            published: dict[str, int] = {}
            for one in _hosts(connection):
                published[one.version] = min(one.seq, published.get(one.version, one.seq))
            query = select(encoded).where(encoded.c.item_id == item_id)
            vectors = {row.version: row for row in connection.execute(query)}
        return [
            ItemState(
                version,
                encoded=seq >= item.seq
                or item.deleted
                or (version in vectors and vectors[version].seq >= item.seq),
                visible=seq >= item.seq,
                problem=vectors[version].problem if version in vectors else None,
            )
            for version, seq in sorted(published.items())
        ]

    def _items(self, query: Select[Any]) -> list[StoredItem]:
        with self._database.reading() as connection:
            return [_item(row) for row in connection.execute(query)]

    @contextmanager
    def _writing(self) -> Iterator["_Change"]:
        with self._database.writing() as connection:
            lock(connection, _LOCK)
            change = _Change(connection)
            yield change
            change.write()


class _Change:
    """Changes of products within a transaction that holds the writers' lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._now_us = int(connection.execute(select(now_us())).scalar_one())
        self._seq = _last_seq(connection)
        self._known: dict[str, StoredItem] = {}
        self._changed: dict[str, StoredItem] = {}

    def load(self, ids: Sequence[str]) -> None:
        self._known |= _by_id(self._connection, ids)

    def existing(self, item_id: str) -> StoredItem:
        if item_id not in self._known:
            raise _unknown(item_id)
        return self._known[item_id]

    def picture(self, picture: bytes | Path | None) -> str | None:
        if not isinstance(picture, bytes):
            return _reference(picture)
        digest = hashlib.sha256(picture).hexdigest()
        insert_new(self._connection, pictures, ("sha256", "bytes"), [(digest, picture)])
        return f"sha256:{digest}"

    def put(self, columns: ItemColumns, picture: str | None, at: str | None = None) -> StoredItem:
        """Store a product as a whole, unless it is stored like this."""
        if picture is None and not columns.text():
            raise InvalidField("a product needs a title, a description or an image", field=at)
        old = self._known.get(columns.id)
        if columns.created_at is None:
            first = self._now_us // 1_000_000 if old is None else old.columns.created_at
            columns = columns.model_copy(update={"created_at": first})
        if old is not None and not old.deleted and (old.columns, old.picture) == (columns, picture):
            return old
        return self._keep(columns, picture, old, deleted=False)

    def delete(self, item_id: str) -> StoredItem:
        old = self.existing(item_id)
        if old.deleted:
            return old
        return self._keep(old.columns, old.picture, old, deleted=True)

    def write(self) -> None:
        if not self._changed:
            return
        replace = replacing(self._connection.dialect.name, items)
        self._connection.execute(replace, [_values(item) for item in self._changed.values()])

    def _keep(
        self, columns: ItemColumns, picture: str | None, old: StoredItem | None, *, deleted: bool
    ) -> StoredItem:
        self._seq += 1
        item = StoredItem(
            columns,
            picture,
            revision=1 if old is None else old.revision + 1,
            seq=self._seq,
            deleted=deleted,
            updated_at=from_us(self._now_us),
            seeded=None if old is None else old.seeded,
        )
        self._known[item.id] = self._changed[item.id] = item
        return item


def _merged(old: ItemColumns, fields: Mapping[str, object]) -> ItemColumns:
    if fields.get("image") is not None:
        raise InvalidField("only null is allowed here", field="image")
    if fields.get("id", old.id) != old.id:
        raise InvalidField("the id of a product cannot be changed", field="id")
    changed = {name: value for name, value in fields.items() if name not in ("id", "image")}
    attributes = changed.get("attributes", {})
    if isinstance(attributes, Mapping):
        merged = {**old.attributes, **attributes}
        changed["attributes"] = {name: value for name, value in merged.items() if value is not None}
    try:
        return ItemColumns.model_validate({**old.model_dump(), **changed})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        message = problem["msg"].removeprefix("Value error, ")
        raise InvalidField(message, field=".".join(map(str, problem["loc"]))) from error


def _unknown(item_id: str) -> UnknownItem:
    return UnknownItem(f"there is no product {item_id!r}", field="id")


def read_picture_file(reference: str, max_bytes: int) -> bytes:
    """Read the picture ``file:/PATH``, or raise ``BadPicture``; a larger file is not read."""
    path = Path(reference.removeprefix("file:"))
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise BadPicture(f"{path} has {size:,} bytes; at most {max_bytes:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"{path} cannot be read: {error.strerror}") from error


def _reference(picture: Path | None) -> str | None:
    return None if picture is None else f"file:{picture.absolute()}"


def _inputs(columns: ItemColumns, picture: str | None) -> str:
    values = [getattr(columns, name) for name in _TEXTS]
    return hashlib.sha256(orjson.dumps([*values, picture])).hexdigest()


_BLANK = ItemColumns.model_construct(id="")
_SAME = ("picture", "revision", "seq", "deleted", "seeded")
"""Columns that are attributes of a ``StoredItem``."""


def _item(row: Any) -> StoredItem:
    fields = orjson.loads(row.body)
    # Validated when it was stored; a copy takes a third of the time of pydantic's construction.
    columns = _BLANK.model_copy(update={"id": row.id, **fields})
    same = {name: getattr(row, name) for name in _SAME}
    return StoredItem(columns, updated_at=from_us(row.updated_us), **same)


def _values(item: StoredItem) -> dict[str, object]:
    same = {name: getattr(item, name) for name in ("id", *_SAME)}
    body = orjson.dumps(item.columns.model_dump(exclude={"id"}, exclude_defaults=True)).decode()
    return {**same, "body": body, "updated_us": to_us(item.updated_at)}


_SEED_COLUMNS = tuple(column.name for column in items.c)
_SEED_ROWS = 5_000


def seeded_item(write: ItemWrite, now: int = 0) -> StoredItem:
    """Return a catalogue's product as it is stored at first."""
    picture = _reference(cast("Path | None", write.picture))
    return StoredItem(
        write.columns,
        picture,
        revision=1,
        seq=0,
        deleted=False,
        updated_at=from_us(now),
        seeded=_inputs(write.columns, picture),
    )


def _seed_row(write: ItemWrite, now: int) -> tuple[Any, ...]:
    values = _values(seeded_item(write, now))
    return tuple(values[name] for name in _SEED_COLUMNS)


_ENCODED_COLUMNS = [column.label(f"encoded_{column.name}") for column in encoded.c]


def _encoded(row: Any) -> EncodedItem | None:
    _, item_id, revision, seq, inputs, embedding, vector, problem = row[-len(_ENCODED_COLUMNS) :]
    if item_id is None:
        return None
    vectors = _floats(embedding), _floats(vector)
    return EncodedItem(item_id, revision, seq, inputs, *vectors, problem)


def _bytes(values: NDArray[np.float32] | None) -> bytes | None:
    return None if values is None else values.astype("<f4").tobytes()


def _floats(data: bytes | None) -> NDArray[np.float32] | None:
    return None if data is None else np.frombuffer(data, dtype="<f4").astype(np.float32)


def _by_id(connection: Connection, ids: Sequence[str]) -> dict[str, StoredItem]:
    found: dict[str, StoredItem] = {}
    for part in parts(ids):
        rows = connection.execute(select(items).where(items.c.id.in_(part)))
        found |= {row.id: _item(row) for row in rows}
    return found


def _hosts(connection: Connection) -> list[Shelf]:
    query = select(shelves).where(shelves.c.at_us > now_us() - literal(span_us(_SILENT_S)))
    rows = connection.execute(query.order_by(shelves.c.host, shelves.c.version))
    return [Shelf(row.host, row.version, row.seq, from_us(row.at_us)) for row in rows]


def _last_seq(connection: Connection) -> int:
    return connection.scalar(select(func.max(items.c.seq))) or 0
