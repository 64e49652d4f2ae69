"""Answers are kept whole, each once."""

import math
import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from newshelf.errors import InvalidField
from newshelf.store.records import ExposedItem
from newshelf.store.schema import item_key, ranking_from, ranking_text
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.store.conftest import MakeExposure
from tests.unit.store.helpers import START


def test_what_was_stored_is_read_back(store: EventStore, exposure) -> None:
    kept = [
        exposure("ring", "vase", rollout="spring", variant="challenger", fallback=True),
        exposure(status=503),
        exposure('a"b', "naïve ❤", "\\", unit="'; DROP TABLE exposures; --"),
    ]
    store.write(WriteBatch(exposures=kept))
    assert list(store.exposures()) == kept
    assert list(store.exposures("spring")) == kept[:1]


def test_answers_since_a_moment_or_a_sample_of_them(store: EventStore, exposure) -> None:
    kept = [exposure("ring", at_s=number) for number in range(10)]
    store.write(WriteBatch(exposures=kept))
    since = START + timedelta(seconds=4)
    assert list(store.exposures(since=since)) == kept[4:]
    assert store.count_answers(since) == 6
    sampled = list(store.exposures(since=since, every=3))
    assert len(sampled) == 2
    assert all(one in kept[4:] for one in sampled)


def test_a_request_is_kept_once_and_as_it_was_first(store: EventStore, exposure) -> None:
    first = exposure("ring", request_id="one")
    again = exposure("vase", request_id="one", rollout="spring")
    store.write(WriteBatch(exposures=[first, again]))
    store.write(WriteBatch(exposures=[again, exposure(request_id="two")]))
    assert [one.request_id for one in store.exposures()] == ["one", "two"]
    assert next(store.exposures()) == first


@pytest.mark.parametrize("number", [1, 63, 64, 65, 200])
def test_any_number_of_rows_is_one_write(store: EventStore, exposure, number: int) -> None:
    kept = [exposure("ring", request_id=f"{n:04}") for n in range(number)]
    store.write(WriteBatch(exposures=kept))
    assert list(store.exposures()) == kept


def test_more_than_a_page_is_read(store: EventStore, exposure, monkeypatch) -> None:
    monkeypatch.setattr("newshelf.store.store._PAGE_ROWS", 3)
    for number in range(7):
        store.write(WriteBatch(exposures=[exposure("ring", request_id=str(number))]))
    assert [one.request_id for one in store.exposures()] == list("0123456")


def test_a_value_that_the_database_cannot_hold_is_refused_and_nothing_is_kept(
    store: EventStore, exposure
) -> None:
    with pytest.raises(InvalidField, match="cannot hold"):
        store.write(
            WriteBatch(exposures=[exposure("ring"), exposure(status=2**70), exposure("vase")])
        )
    assert list(store.exposures()) == []


def test_a_score_that_is_no_number_is_kept_as_none() -> None:
    item = ExposedItem(item_id="a", position=1, score=math.inf, source="model", propensity=1)
    (found,) = ranking_from(ranking_text([item]))
    assert math.isnan(found.score)


@given(st.text(min_size=1), st.lists(st.text(min_size=1), max_size=4), st.text())
def test_a_products_key_stands_only_where_it_was_shown(
    item_id: str, shown: list[str], source: str
) -> None:
    items = [
        ExposedItem.model_construct(
            item_id=one, position=1, score=0.5, source=source, propensity=1.0
        )
        for one in shown
    ]
    assert (item_key(item_id) in ranking_text(items)) == (item_id in shown)


def test_an_id_without_a_meaning_to_one_of_the_databases_is_no_id(exposure) -> None:
    with pytest.raises(ValidationError, match="unit"):
        exposure("ring", unit="a\x00b")


def test_only_its_owner_may_read_sqlites_files(tmp_path: Path, exposure) -> None:
    with EventStore.open(f"sqlite:///{tmp_path}/deep/events.db") as store:
        store.write(WriteBatch(exposures=[exposure("ring")]))
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep").iterdir()}
    assert modes == {0o600}


def test_sqlite_writes_ahead_and_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    with (
        EventStore.open(f"sqlite:///{tmp_path}/events.db") as store,
        store.database.reading() as connection,
    ):
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    journal = sqlite3.connect(tmp_path / "events.db").execute("PRAGMA journal_mode").fetchone()
    assert journal == ("wal",)


def test_the_last_answer_of_a_split(store: EventStore, exposure: MakeExposure) -> None:
    assert store.last_answer_at("spring") is None
    store.write(
        WriteBatch(
            exposures=[
                exposure("ring", at_s=50, rollout="spring", variant="control"),
                exposure("ring", at_s=30, rollout="spring", variant="default"),
                exposure("ring", at_s=90),
            ]
        )
    )
    assert store.last_answer_at("spring") == START + timedelta(seconds=50)
