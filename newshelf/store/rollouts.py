"""Rollouts in the event store: plan, state, split, journal and snapshots; leases; hosts.

All times are the database's, so the clocks of the controllers' machines need not agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, case, delete, func, insert, literal, select, update
from sqlalchemy.engine import Connection

from newshelf.errors import SettingsError
from newshelf.store import schema
from newshelf.store.database import Database
from newshelf.store.records import Traffic, TrafficSplit
from newshelf.store.schema import (
    from_us,
    hosts,
    insert_into,
    insert_new,
    leases,
    looks,
    now_us,
    replacing,
    served,
    span_us,
)

_MODEL = "recommender"


@dataclass(frozen=True)
class RolloutRow:
    """The current version of one rollout."""

    name: str
    plan: str
    """JSON of the plan; the store does not read it."""
    state: str
    """JSON of the controller's state; the store does not read it."""
    split: TrafficSplit | None
    """None before the start and after the end."""
    revision: int
    """From 1; each change adds one."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class JournalEntry:
    """One change of a rollout's state; never edited."""

    rollout: str
    revision: int
    at: datetime
    state: str
    split: TrafficSplit | None
    note: str


@dataclass(frozen=True)
class SnapshotRow:
    """One look of the controller at a rollout; never edited."""

    at: datetime
    snapshot: str
    """JSON; the store does not read it."""


class RolloutRepository:
    """Reads and changes rollouts. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, plan: str, state: str, split: TrafficSplit | None) -> None:
        """Store a new rollout at revision 1, with the first entry of its journal."""
        content = _content(name, state, split)
        with self._database.writing() as connection:
            now = _next_time(connection)
            columns = ("name", "plan", "state", "split", "revision", "created_us", "updated_us")
            row = (name, plan, content["state"], content["split"], 1, now, now)
            if not insert_new(connection, schema.rollouts, columns, [row], returning="name"):
                raise SettingsError(
                    f"there is a rollout {name} already: give the new one another name",
                    field="name",
                )
            _add_entry(connection, name, 1, content, "created")

    def get(self, name: str) -> RolloutRow:
        """Return one rollout."""
        with self._database.reading() as connection:
            return _get(connection, name)

    def all(self) -> list[RolloutRow]:
        """Return all rollouts, oldest first."""
        table = schema.rollouts
        query = select(table).order_by(table.c.created_us, table.c.name)
        with self._database.reading() as connection:
            return [_rollout(row) for row in connection.execute(query)]

    def traffic(self) -> Traffic:
        """Return the splits of running rollouts, oldest first, and the version outside them."""
        table = schema.rollouts
        query = (
            select(table.c.split)
            .where(table.c.split.is_not(None))
            .order_by(table.c.created_us, table.c.name)
        )
        with self._database.reading() as connection:
            splits = map(TrafficSplit.model_validate_json, connection.scalars(query))
            return Traffic(tuple(splits), connection.scalar(select(served.c.version)) or "")

    def replace_state(
        self,
        name: str,
        revision: int,
        state: str,
        split: TrafficSplit | None,
        note: str,
        *,
        holder: str | None = None,
        serve: str | None = None,
    ) -> bool:
        """Change state and split and add a journal entry, if the rollout has not changed since.

        In the same transaction, ``serve`` becomes the version that answers outside splits.

        Returns False, with nothing changed, when the rollout has another revision or does not
        exist, or ``holder`` is given and no longer has the lease ``name``.
        """
        content = _content(name, state, split)
        with self._database.writing() as connection:
            if holder is not None and not _holds_lease(connection, name, holder):
                return False
            changed = connection.execute(
                update(schema.rollouts)
                .where(schema.rollouts.c.name == name, schema.rollouts.c.revision == revision)
                .values(**content, revision=revision + 1, updated_us=now_us())
            )
            if changed.rowcount == 0:
                return False
            _add_entry(connection, name, revision + 1, content, note)
            if serve is not None:
                replace = replacing(connection.dialect.name, served)
                connection.execute(replace.values(model=_MODEL, version=serve))
        return True

    def journal(self, name: str) -> list[JournalEntry]:
        """Return all changes of a rollout, oldest first."""
        table = schema.journal
        query = select(table).where(table.c.rollout == name).order_by(table.c.revision)
        with self._database.reading() as connection:
            _get(connection, name)
            return [
                JournalEntry(
                    row.rollout,
                    row.revision,
                    from_us(row.at_us),
                    row.state,
                    _split(row.split),
                    row.note,
                )
                for row in connection.execute(query)
            ]

    def add_snapshot(self, name: str, snapshot: str) -> None:
        """Store a snapshot of a rollout."""
        with self._database.writing() as connection:
            connection.execute(insert(looks).values(rollout=name, at_us=now_us(), look=snapshot))

    def snapshots(self, name: str, *, most: int) -> list[SnapshotRow]:
        """Return at most ``most`` snapshots, evenly spaced, oldest first, with the last one."""
        numbered = (
            select(
                looks.c.at_us,
                looks.c.look,
                func.row_number().over(order_by=looks.c.id.desc()).label("place"),
            )
            .where(looks.c.rollout == name)
            .subquery()
        )
        with self._database.reading() as connection:
            count = connection.scalar(select(func.count()).select_from(numbered)) or 0
            step = -(-count // most) or 1
            query = (
                select(numbered.c.at_us, numbered.c.look)
                .where((numbered.c.place - 1) % step == 0)
                .order_by(numbered.c.place.desc())
            )
            return _snapshots(connection.execute(query).all())

    def last_snapshot(self, name: str) -> SnapshotRow | None:
        """Return a rollout's newest snapshot; None before the first."""
        query = (
            select(looks.c.at_us, looks.c.look)
            .where(looks.c.rollout == name)
            .order_by(looks.c.id.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            rows = _snapshots(connection.execute(query).all())
        return rows[0] if rows else None


class Leases:
    """Named leases: one process acts at a time, and a dead holder's lease expires."""

    table: Table = leases

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or prolong a lease by the database's clock; False when another holder has it."""
        with self._database.writing() as connection:
            table = self.table.c
            new = insert_into(connection.dialect.name, self.table).values(
                name=name, holder=holder, expires_us=now_us() + literal(span_us(ttl_s))
            )
            mine = table.holder == new.excluded.holder
            changes = {"holder": new.excluded.holder, "expires_us": new.excluded.expires_us}
            if self.table is hosts:
                changes["report"] = case((mine, table.report))
            taken = new.on_conflict_do_update(
                index_elements=["name"], set_=changes, where=mine | (table.expires_us <= now_us())
            ).returning(table.holder)
            return connection.execute(taken).first() is not None

    def holder(self, name: str) -> str | None:
        """Return who has a lease now."""
        table = self.table.c
        query = select(table.holder).where(table.name == name, table.expires_us > now_us())
        with self._database.reading() as connection:
            return connection.scalar(query)

    def release(self, name: str, holder: str) -> None:
        """Release a lease if ``holder`` still has it."""
        with self._database.writing() as connection:
            table = self.table
            connection.execute(delete(table).where(table.c.name == name, table.c.holder == holder))


class Hosts(Leases):
    """Hosts with a model server: leases of their controllers, with what these report."""

    table = hosts

    def report(self, name: str, holder: str, report: str) -> bool:
        """Replace the report of a host; False when another holder has its lease."""
        mine = (hosts.c.name == name) & (hosts.c.holder == holder)
        with self._database.writing() as connection:
            changed = connection.execute(update(hosts).where(mine).values(report=report))
            return changed.rowcount > 0

    def reports(self) -> dict[str, str | None]:
        """Return the report of each host whose lease has not expired; None before its first."""
        query = select(hosts.c.name, hosts.c.report).where(hosts.c.expires_us > now_us())
        with self._database.reading() as connection:
            return {row.name: row.report for row in connection.execute(query.order_by("name"))}


def _holds_lease(connection: Connection, name: str, holder: str) -> bool:
    """Return whether the lease is ``holder``'s, and lock it until the transaction ends."""
    query = (
        select(leases.c.name)
        .where(leases.c.name == name, leases.c.holder == holder, leases.c.expires_us > now_us())
        .with_for_update()
    )
    return connection.execute(query).first() is not None


def _get(connection: Connection, name: str) -> RolloutRow:
    table = schema.rollouts
    row = connection.execute(select(table).where(table.c.name == name)).first()
    if row is None:
        names = connection.scalars(select(table.c.name).order_by(table.c.created_us)).all()
        raise SettingsError(
            f"there is no rollout {name}; there is {', '.join(names) or 'none at all'}",
            field="name",
        )
    return _rollout(row)


def _next_time(connection: Connection) -> int:
    """Return now, or the microsecond after the newest rollout's creation: times tell the order."""
    newest = select(func.coalesce(func.max(schema.rollouts.c.created_us), 0)).scalar_subquery()
    now, last = connection.execute(select(now_us(), newest)).one()
    return max(int(now), int(last) + 1)


def _content(name: str, state: str, split: TrafficSplit | None) -> dict[str, str | None]:
    if split is not None and split.rollout != name:
        raise SettingsError(f"the split is of the rollout {split.rollout}, not of {name}")
    return {"state": state, "split": None if split is None else split.model_dump_json()}


def _add_entry(
    connection: Connection,
    name: str,
    revision: int,
    content: Mapping[str, str | None],
    note: str,
) -> None:
    connection.execute(
        insert(schema.journal).values(
            rollout=name, revision=revision, at_us=now_us(), note=note, **content
        )
    )


def _rollout(row: Any) -> RolloutRow:
    times = from_us(row.created_us), from_us(row.updated_us)
    return RolloutRow(row.name, row.plan, row.state, _split(row.split), row.revision, *times)


def _split(text: str | None) -> TrafficSplit | None:
    return None if text is None else TrafficSplit.model_validate_json(text)


def _snapshots(rows: Sequence[Any]) -> list[SnapshotRow]:
    return [SnapshotRow(from_us(at_us), snapshot) for at_us, snapshot in rows]
