from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from newshelf.catalog.catalog import read_catalog
from newshelf.pipeline.demo import pick_demo


def write(folder: Path, **tables: dict[str, list[Any]]) -> Path:
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    return folder


ITEMS = {"id": list("abcd"), "title": ["A", "B", "C", "D"]}


def test_the_last_shopper_with_enough_products(tmp_path: Path) -> None:
    events = [("u", "a"), ("v", "a"), ("v", "b"), ("v", "b"), ("v", "c"), ("v", "d"), ("w", "a")]
    write(
        tmp_path,
        items=ITEMS,
        events={
            "user_id": [user for user, _ in events],
            "item_id": [item for _, item in events],
            "event_type": ["view"] * len(events),
            "timestamp": list(range(len(events))),
        },
    )
    demo = pick_demo(read_catalog(tmp_path))
    assert (demo.history, demo.owner) == (["b", "c", "d"], "shopper v")
    assert demo.titles["b"] == "B"
    assert demo.requests()["recommender"] == {"history": ["b", "c", "d"], "k": 1}


def test_a_basket_when_there_are_no_events(tmp_path: Path) -> None:
    write(
        tmp_path,
        items=ITEMS,
        baskets={"basket_id": ["1", "1", "2"], "item_id": ["c", "d", "a"]},
    )
    demo = pick_demo(read_catalog(tmp_path))
    assert (demo.history, demo.owner) == (["c", "d"], "basket 1")


def test_the_first_products_when_nothing_was_ever_done(tmp_path: Path) -> None:
    demo = pick_demo(read_catalog(write(tmp_path, items=ITEMS)))
    assert demo.history == ["a", "b", "c"]


def test_products_without_titles(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write(tmp_path, items={"id": ["a"], "image_link": ["a.png"]})
    assert pick_demo(read_catalog(tmp_path)).picture == tmp_path / "a.png"


def test_the_same_shopper_at_every_start(tmp_path: Path) -> None:
    write(tmp_path, items=ITEMS)
    assert pick_demo(read_catalog(tmp_path)) == pick_demo(read_catalog(tmp_path))
