"""Histories, merges and erasure of units, on both databases."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newshelf.errors import Conflict, ErasedUnit, InvalidField
from newshelf.store import database
from newshelf.store.export import write_events
from newshelf.store.group_commit import GroupCommit
from newshelf.store.records import Exposure, Feedback
from newshelf.store.spool import Spool
from newshelf.store.store import EventStore
from newshelf.store.units import Erasure
from newshelf.store.write import WriteBatch
from tests.unit.store.helpers import START

MakeExposure = Callable[..., Exposure]
MakeFeedback = Callable[..., Feedback]


def items(store: EventStore, unit: str, limit: int = 10) -> list[str]:
    return [one.item_id for one in store.units.history(unit, limit)]


def done(store: EventStore, *events: Feedback) -> list[str]:
    return list(store.write(WriteBatch(feedback=events)))


def test_a_history_is_the_last_of_all_kinds_and_needs_no_answer(
    store: EventStore, exposure: MakeExposure, feedback: MakeFeedback
) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", request_id="r")]))
    done(
        store,
        feedback("ring", request_id="r", at_s=3),
        feedback("vase", "favourite", unit="ann", at_s=5),
        feedback("lamp", "view", unit="ann", at_s=4),
        feedback("sofa", unit="bob", at_s=6),
    )
    assert items(store, "ann") == ["vase", "lamp", "ring"]
    assert items(store, "ann", 2) == ["vase", "lamp"]
    assert items(store, "nobody") == []
    newest = store.units.history("ann", 1)[0]
    assert (newest.event_type, newest.at_us) == ("favourite", 1_772_366_405_000_000)
    asynchronous = asyncio.run(read_async(store, "ann"))
    assert asynchronous == store.units.history("ann", 10)


async def read_async(store: EventStore, unit: str) -> list[Any]:
    first = await store.units.read_history(unit, 10)
    several = await asyncio.gather(*(store.units.read_history(unit, 10) for _ in range(5)))
    assert several == [first] * 5
    await store.units.disconnect()
    return first


def test_what_a_visitor_did_is_the_units_who_logged_in(
    store: EventStore, feedback: MakeFeedback
) -> None:
    names = ["cookie", "phone", "ann", "other"]
    done(store, *(feedback(f"of-{unit}", unit=unit, at_s=n) for n, unit in enumerate(names)))
    store.units.merge("cookie", "phone")
    store.units.merge("phone", "ann")
    store.units.merge("phone", "ann")
    assert items(store, "ann") == ["of-ann", "of-phone", "of-cookie"]
    assert items(store, "ann", 2) == ["of-ann", "of-phone"]
    # Somebody else may use the browser next.
    assert items(store, "phone") == ["of-phone", "of-cookie"]
    shown = store.units.show("ann")
    assert set(shown.visitors) == {"cookie", "phone"}
    assert store.units.show("cookie").merged_into == "phone"


def test_a_merge_makes_no_cycle_and_takes_no_visitor_away(store: EventStore) -> None:
    store.units.merge("a", "b")
    store.units.merge("b", "c")
    for visitor, unit, error, field in (
        ("a", "a", InvalidField, "unit"),
        ("c", "a", Conflict, "unit"),
        ("b", "a", Conflict, "visitor"),
        ("a", "d", Conflict, "visitor"),
    ):
        with pytest.raises(error) as refused:
            store.units.merge(visitor, unit)
        assert refused.value.field == field
    assert set(store.units.show("c").visitors) == {"a", "b"}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), max_size=20))
def test_every_order_of_merges_gives_a_forest(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    parents: dict[int, int] = {}

    def above(unit: int) -> list[int]:
        return [] if unit not in parents else [parents[unit], *above(parents[unit])]

    with EventStore.open(f"sqlite:///{tmp_path_factory.mktemp('m')}/events.db") as store:
        for visitor, unit in pairs:
            try:
                store.units.merge(str(visitor), str(unit))
            except (Conflict, InvalidField):
                loop = visitor == unit or visitor in above(unit)
                assert loop or parents.get(visitor, unit) != unit
            else:
                parents[visitor] = unit
        for unit in range(6):
            below = {str(one) for one in range(6) if unit in above(one)}
            assert set(store.units.show(str(unit)).visitors) == below


def test_all_that_is_kept_is_shown(
    store: EventStore, exposure: MakeExposure, feedback: MakeFeedback
) -> None:
    answers = [exposure("ring", request_id="1"), exposure("vase", request_id="2", unit="cookie")]
    store.write(WriteBatch(exposures=[*answers, exposure("sofa", unit="bob")]))
    done(store, feedback("ring", request_id="1", at_s=9), feedback("x", unit="bob"))
    store.units.merge("cookie", "ann")
    shown = store.units.show("ann")
    assert list(shown.exposures) == answers
    assert [one.item_id for one in shown.feedback] == ["ring"]
    assert shown.first_seen == answers[0].at
    assert shown.last_seen == START + timedelta(seconds=9)
    assert not shown.erased
    nobody = store.units.show("nobody")
    assert (nobody.first_seen, nobody.exposures, nobody.feedback) == (None, [], [])


def test_an_erased_unit_is_gone_and_stays_away(
    store: EventStore, exposure: MakeExposure, feedback: MakeFeedback, tmp_path: Path
) -> None:
    store.units.merge("cookie", "ann")
    store.units.merge("ann", "account")
    store.write(WriteBatch(exposures=[exposure("ring", request_id="1"), exposure(unit="bob")]))
    done(store, feedback("ring", request_id="1"), feedback("vase", unit="cookie"))
    done(store, feedback("lamp", unit="account"), feedback("sofa", unit="bob"))
    assert store.units.erase("ann", settle_s=0) == Erasure(1, exposures=1, feedback=2)
    assert store.units.erase("ann", settle_s=0) == Erasure(0, exposures=0, feedback=0)
    assert [one.unit for one in store.exposures()] == ["bob"]
    assert [one.unit for one in store.feedback()] == ["account", "bob"]
    assert items(store, "account") == ["lamp"]
    assert store.units.show("ann").erased
    # Late rows: of the unit, of its visitor, of an answer that is gone, and of a neighbour.
    late = [
        feedback("ring", unit="ann"),
        feedback("ring", unit="cookie"),
        feedback("ring", request_id="1"),
        feedback("ring", unit="bob"),
    ]
    assert done(store, *late) == ["erased", "erased", "unknown_request", "unjoined"]
    store.write(WriteBatch(exposures=[exposure("ring"), exposure("ring", unit="bob")]))
    assert {one.unit for one in store.exposures()} == {"bob"}
    for visitor, unit, field in (("ann", "bob", "visitor"), ("new", "cookie", "unit")):
        with pytest.raises(ErasedUnit) as refused:
            store.units.merge(visitor, unit)
        assert refused.value.field == field
    assert write_events(store.feedback(), tmp_path / "events.csv") == 3
    exported = (tmp_path / "events.csv").read_text()
    assert "bob" in exported
    assert "ann" not in exported
    assert "cookie" not in exported


def test_another_process_refuses_an_erased_unit_too(
    url: str, store: EventStore, exposure: MakeExposure, feedback: MakeFeedback
) -> None:
    with EventStore.connect(url, window=timedelta(hours=1)) as other:
        # It has read the tombstones, and reads them again only when they are old.
        assert other.units.erased(["ann"]) == set()
        done(other, feedback("ring", unit="ann"))
        store.units.erase("ann", settle_s=0)
        assert other.units.erased(["ann"], max_age_s=60) == set()
        assert other.units.erased(["ann", "bob", None], max_age_s=0) == {"ann"}
        assert other.write(WriteBatch(feedback=[feedback("ring", unit="ann")])) == ["erased"]
        asyncio.run(commit(other, [exposure("ring"), exposure("ring", unit="bob")]))
    assert [one.unit for one in store.exposures()] == ["bob"]
    assert list(store.feedback()) == []


async def commit(store: EventStore, answers: list[Exposure]) -> None:
    commits = GroupCommit(store, connections=store.async_connections())
    await asyncio.gather(*(commits.exposure(answer) for answer in answers))
    await commits.close()


def test_rows_that_were_in_flight_are_removed_after_the_pause(
    url: str, store: EventStore, feedback: MakeFeedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventStore.connect(url) as other:
        assert other.units.erased(["ann"]) == set()

        def write_late(_seconds: float) -> None:
            # A process that does not know the tombstone yet.
            monkeypatch.setattr(other.units, "_tombstones", set())
            other.write(WriteBatch(feedback=[feedback("ring", unit="ann")]))
            assert len(list(store.feedback())) == 1

        monkeypatch.setattr("newshelf.store.units.time.sleep", write_late)
        assert store.units.erase("ann").feedback == 1
    assert list(store.feedback()) == []


def test_a_spooled_row_of_an_erased_unit_is_dropped_on_replay(
    store: EventStore, exposure: MakeExposure, feedback: MakeFeedback, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool" / "spool.db", 2**22)
    for unit in ("ann-smith", "bob"):
        answer = exposure("ring", request_id=unit, unit=unit)
        spool.write(WriteBatch(exposures=[answer], feedback=[feedback("ring", request_id=unit)]))
        spool.write(WriteBatch(feedback=[feedback("ring", unit=unit)]))
    store.units.erase("ann-smith", settle_s=0)
    while spool.replay(store.write):
        pass
    assert not spool.holds()
    assert [one.unit for one in store.exposures()] == ["bob"]
    assert {one.unit for one in store.feedback()} == {"bob"}
    assert not mentions(tmp_path / "spool", "ann-smith")


def mentions(folder: Path, unit: str) -> bool:
    """Return whether any file holds the id, also between rows."""
    files = [path for path in folder.iterdir() if path.is_file()]
    assert files
    return any(unit.encode() in path.read_bytes() for path in files)


def test_an_erasure_waits_for_a_reader_of_the_log(
    tmp_path: Path, exposure: MakeExposure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventStore.open(f"sqlite:///{tmp_path}/store/events.db") as store:
        store.write(WriteBatch(exposures=[exposure("item-0", request_id="r", unit="<ann>")]))
        reader = sqlite3.connect(tmp_path / "store" / "events.db", isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM exposures").fetchone() == (1,)
        waits: list[float] = []

        def end_reader(seconds: float) -> None:
            waits.append(seconds)
            reader.close()

        monkeypatch.setattr(
            database, "time", SimpleNamespace(monotonic=time.monotonic, sleep=end_reader)
        )
        store.units.erase("<ann>", settle_s=0)
        assert len(waits) == 1
        assert not mentions(tmp_path / "store", "<ann>")


def test_nothing_in_sqlites_files_holds_the_id_of_an_erased_unit(
    tmp_path: Path, exposure: MakeExposure, feedback: MakeFeedback
) -> None:
    with EventStore.open(f"sqlite:///{tmp_path}/store/events.db") as store:
        # Rows of all sizes in many transactions, so that pages are split and rows move.
        for number in range(40):
            shown = [f"item-{one}" for one in range(number * 7 % 90 + 1)]
            units = [f"<{one}>" for one in range(number % 9, 300, 9)]
            answers = [
                exposure(*shown, request_id=f"{number * 7919 % 1000}-{unit}", unit=unit)
                for unit in units
            ]
            store.write(WriteBatch(exposures=answers))
            events = [feedback("item-0", unit=unit, event_id=f"{number}-{unit}") for unit in units]
            store.write(WriteBatch(feedback=events))
        store.units.merge("<phone>", "<8>")
        assert mentions(tmp_path / "store", "<phone>")
        erased = [f"<{number}>" for number in range(100, 110)]
        for unit in (*erased, "<8>"):
            store.units.erase(unit, settle_s=0)
        assert mentions(tmp_path / "store", "<99>")
        for unit in (*erased, "<phone>"):
            assert not mentions(tmp_path / "store", unit)
