"""What is exported, the catalogue's reader takes: the loop is closed."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.schema import EVENT_COLUMNS, guard_formula, unguard_formula
from newshelf.errors import SettingsError
from newshelf.store.export import recorded_events, write_events
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

ITEMS = ["id,title", "ring,Jade ring", '"va,se",Vase', "lamp,Lamp"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_training_reads_what_shoppers_did(
    store: EventStore, exposure, feedback, tmp_path: Path, suffix: str
) -> None:
    kinds = ["view", "click", "cart", "purchase"]
    store.write(WriteBatch(exposures=[exposure("ring", "va,se", request_id="r")]))
    store.write(
        WriteBatch(
            feedback=[
                feedback("va,se", kind, request_id="r", at_s=n + 0.9)
                for n, kind in enumerate(kinds)
            ]
        )
    )
    store.write(WriteBatch(feedback=[feedback("lamp", "purchase", unit='b"ob', at_s=-5, value=2)]))
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "items.csv").write_text("\n".join(ITEMS))
    assert write_events(store.feedback(), shop / f"events{suffix}") == 5
    catalog = read_catalog(shop, strict=True)
    assert catalog.events is not None
    begin = 1772366400
    assert catalog.events["event_id"].is_unique
    assert catalog.events.drop(columns="event_id").to_numpy().tolist() == [
        ['b"ob', "lamp", "purchase", begin - 5],
        *(["ann", "va,se", kind, begin + n] for n, kind in enumerate(kinds)),
    ]


FORMULAS = ['=HYPERLINK("http://x.example","y")', "+1", "-5", "@SUM(A1)", "'=1", "''-1", "'plain"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_ids_that_a_spreadsheet_would_execute_are_text_there_and_themselves_here(
    store: EventStore, feedback, tmp_path: Path, suffix: str
) -> None:
    store.write(WriteBatch(feedback=[feedback("ring", unit=unit) for unit in FORMULAS]))
    (tmp_path / "items.csv").write_text("\n".join(ITEMS))
    path = tmp_path / f"events{suffix}"
    write_events(store.feedback(), path)
    catalog = read_catalog(tmp_path, strict=True)
    assert catalog.events is not None
    assert set(catalog.events["user_id"]) == set(FORMULAS)
    if suffix != ".parquet":
        with path.open(newline="") as file:
            cells = [cell for row in csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")
                     for cell in row]  # fmt: skip
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@given(st.text())
def test_a_guarded_cell_is_no_formula_and_comes_back(cell: str) -> None:
    guarded = guard_formula(cell)
    assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unguard_formula(guarded) == cell


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_an_empty_store_is_an_empty_table(store: EventStore, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "items.csv").write_text("\n".join(ITEMS))
    assert write_events(store.feedback(), tmp_path / f"events{suffix}") == 0
    catalog = read_catalog(tmp_path, strict=True)
    assert catalog.events is None
    assert catalog.report.problems == ()


def test_another_suffix_is_refused_and_nothing_is_written(
    store: EventStore, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"events\.json: .*\.parquet or \.csv"):
        write_events(store.feedback(), tmp_path / "out" / "events.json")
    assert not (tmp_path / "out").exists()


ROWS = """\
user_id,item_id,event_type,timestamp,channel
ann,ring,click,1772366500,app
'=1,ring,cart,1772366000,
"""


def shop_file(path: Path) -> None:
    """A shop's own events, with a column of its own and a row that the store has as well."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        frame = pd.read_csv(io.StringIO(ROWS))
        frame["user_id"] = frame["user_id"].str.removeprefix("'")
        frame.to_parquet(path)
    else:
        path.write_text(ROWS.replace(",", "\t") if path.suffix == ".tsv" else ROWS)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_rows_of_a_shops_own_file_stay_and_each_event_is_added_once(
    store: EventStore, feedback, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "shop" / f"events{suffix}"
    shop_file(path)
    (path.parent / "items.csv").write_text("\n".join(ITEMS))
    store.write(WriteBatch(feedback=[feedback("ring", unit="ann")]))
    # Twice in a second: two events, and none of them is the shop's.
    store.write(WriteBatch(feedback=[feedback("lamp", unit="=1") for _ in range(2)]))
    assert [write_events(store.feedback(), path) for _ in range(3)] == [2, 0, 0]
    store.write(WriteBatch(feedback=[feedback("lamp", unit="ann", at_s=200)]))
    assert write_events(store.feedback(), path) == 1
    events = read_catalog(path.parent, strict=True).events
    assert events is not None
    assert events[["user_id", "item_id", "event_type"]].to_numpy().tolist() == [
        ["=1", "ring", "cart"],
        ["ann", "ring", "click"],
        ["=1", "lamp", "click"],
        ["=1", "lamp", "click"],
        ["ann", "lamp", "click"],
    ]
    assert events["channel"].fillna("").tolist() == ["", "app", "", "", ""]


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        (".csv", b"user_id,item_id,timestamp\na,ring,1\n", "event_type"),
        (".csv", b"user_id,item_id,event_type,timestamp\na,ring,view,2026-03-01\n", "2026-03-01"),
        (".csv", b"user_id,item_id,event_type,timestamp\na,ring,view,1772366500000\n", "seconds"),
        (".csv", b"user_id,item_id,event_type,timestamp\na,ring,view\n", "4 columns, got 3"),
        (".csv", b"user_id,item_id,event_type,timestamp\n\xff,ring,view,1\n", "UTF8"),
        (".parquet", b"no parquet", "Parquet"),
    ],
)
def test_a_file_that_cannot_be_added_to_stays_as_it_is(
    store: EventStore, feedback, tmp_path: Path, suffix: str, content: bytes, reason: str
) -> None:
    store.write(WriteBatch(feedback=[feedback("ring", unit="ann")]))
    path = tmp_path / "shop" / f"events{suffix}"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=reason):
        write_events(store.feedback(), path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_times_of_another_type_are_refused(store: EventStore, tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    frame = pd.DataFrame([["a", "ring", "view", 1]], columns=list(EVENT_COLUMNS))
    frame.assign(timestamp=pd.Timestamp("2026-03-01")).to_parquet(path)
    with pytest.raises(SettingsError, match="other times than epoch seconds"):
        write_events(store.feedback(), path)


def test_erased_units_are_not_for_training(
    store: EventStore, feedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(WriteBatch(feedback=[feedback("ring", unit=unit) for unit in ("ann", "bob")]))
    kept = list(store.feedback())
    store.units.erase("ann", settle_s=0)
    # As a writer that did not know yet would have stored it.
    monkeypatch.setattr(store, "feedback", lambda: iter(kept))
    assert [event.unit for event in recorded_events(store)] == ["bob"]


def test_an_export_that_fails_leaves_the_old_one(
    store: EventStore, feedback, tmp_path: Path, monkeypatch
) -> None:
    store.write(WriteBatch(feedback=[feedback("ring", unit="ann")]))
    path = tmp_path / "out" / "events.csv"
    write_events(store.feedback(), path)
    before = path.read_text()

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("pyarrow.csv.write_csv", fail)
    with pytest.raises(OSError, match="full"):
        write_events(store.feedback(), path)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]
