"""What is exported, the catalogue's reader takes: the loop is closed."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.schema import guard_formula, unguard_formula
from newshelf.errors import SettingsError
from newshelf.store.export import write_events
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

ITEMS = ["id,title", "ring,Jade ring", '"va,se",Vase', "lamp,Lamp"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_training_reads_what_shoppers_did(
    store: EventStore, exposure, feedback, tmp_path: Path, suffix: str, monkeypatch
) -> None:
    monkeypatch.setattr("newshelf.store.export._CHUNK_ROWS", 3)
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
    assert catalog.events.to_numpy().tolist() == [
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


def test_an_export_that_fails_leaves_the_old_one(
    store: EventStore, feedback, tmp_path: Path, monkeypatch
) -> None:
    store.write(WriteBatch(feedback=[feedback("ring", unit="ann")]))
    path = tmp_path / "out" / "events.csv"
    write_events(store.feedback(), path)
    before = path.read_text()

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(csv, "writer", fail)
    with pytest.raises(OSError, match="full"):
        write_events(store.feedback(), path)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]
