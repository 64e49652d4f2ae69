"""A small shop, and what is needed to write it down in every format."""

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

Tables = dict[str, list[dict[str, str]]]


def small_shop() -> Tables:
    """Three items, four events, two baskets; nothing is wrong with them."""
    return {
        "items": [
            {
                "id": "00123",
                "title": "Jade ring",
                "description": "Green, with veins",
                "product_type": "Jewellery > Rings",
                "brand": "Corvo",
                "color": "Green",
                "material": "Jade",
                "size": "52",
                "price": "199.5",
                "image_link": "images/ring.jpg",
                "availability": "in_stock",
                "created_at": "1735689600",
                "mood": "calm",
            },
            {
                "id": "b-2",
                "title": "Linen dress",
                "description": "",
                "product_type": "Clothing > Dresses",
                "brand": "",
                "color": "",
                "material": "",
                "size": "",
                "price": "",
                "image_link": "",
                "availability": "",
                "created_at": "",
                "mood": "",
            },
            {
                "id": "NA",
                "title": "",
                "description": "",
                "product_type": "",
                "brand": "",
                "color": "",
                "material": "",
                "size": "",
                "price": "0",
                "image_link": "images/ring.jpg",
                "availability": "out_of_stock",
                "created_at": "",
                "mood": "bright",
            },
        ],
        "events": [
            {"user_id": "7", "item_id": "b-2", "event_type": "click", "timestamp": "1735689700"},
            {"user_id": "7", "item_id": "00123", "event_type": "view", "timestamp": "1735689600"},
            {"user_id": "008", "item_id": "NA", "event_type": "cart", "timestamp": "1735689700"},
            {"user_id": "7", "item_id": "NA", "event_type": "purchase", "timestamp": "1735689650"},
        ],
        "baskets": [
            {"basket_id": "1", "item_id": "00123"},
            {"basket_id": "1", "item_id": "b-2"},
        ],
    }


NUMBERS = {"price": "float64", "created_at": "Int64", "timestamp": "int64"}


def write_table(rows: list[dict[str, str]], path: Path) -> None:
    """As text, or as parquet with numbers in number columns and nulls for blanks."""
    if path.suffix == ".parquet":
        frame = pd.DataFrame(rows).astype("str")
        frame = frame.where(frame != "")
        for name, dtype in NUMBERS.items():
            if name in frame:
                frame[name] = pd.to_numeric(frame[name]).astype(dtype)
        frame.to_parquet(path, index=False)
        return
    with path.open("w", encoding="utf-8", newline="") as handle:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_shop(folder: Path, tables: Tables, extension: str = ".csv") -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (60, 150, 90)).save(folder / "images" / "ring.jpg")
    for name, rows in tables.items():
        write_table(rows, folder / f"{name}{extension}")
    return folder


@pytest.fixture
def shop() -> Tables:
    return small_shop()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save_shop(tables: Tables, extension: str = ".csv") -> Path:
        return write_shop(tmp_path / "shop", tables, extension)

    return save_shop
