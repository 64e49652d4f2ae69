"""``./run catalog check``: what is lost, without training; and a canonical copy."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from newshelf.catalog.catalog import read_catalog, write_catalog
from newshelf.catalog.schema import EVENT_COLUMNS, ITEM_COLUMNS
from newshelf.cli.app import app
from newshelf.errors import SetupError

ITEMS = """id,title,price,availability,created_at,image_link,mood,stock count
00123 ,Jade ring,"1.299,00 €",InStock,2025-01-01,images\\Ring.JPG?v=3,calm,3
b-2,Linen dress,"79,50",sold out,,,,
e\u0301-3,"Vase, ""odd""\n and long",,,,,,0
"""
EVENTS = """user_id,item_id,event_type,timestamp
u1,b-2,view,2025-01-02T00:00:00Z
u1 ,00123,purchase,1735689600000
u2,\xe9-3,view,2025-01-03
"""


def run(*words: object, width: int = 80) -> tuple[int, str]:
    done = CliRunner().invoke(
        app, ["catalog", "check", *map(str, words)], env={"COLUMNS": str(width)}
    )
    return done.exit_code, done.output


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8), (60, 150, 90)).save(folder / "images" / "ring.jpg")
    (folder / "items.csv").write_text(ITEMS)
    (folder / "events.csv").write_text(EVENTS)
    return folder


def test_a_clean_catalogue_ends_with_0_and_its_notes(shop: Path) -> None:
    (shop / "items.csv").write_text("id,title,colr\n00123,Ring,red\nb-2,Dress,\n\xe9-3,Vase,\n")
    code, output = run(shop)
    assert code == 0
    assert "items.csv: 3 rows read, 3 kept" in output
    assert "note: items.csv: the column 'colr'" in output


def test_names_that_were_mapped_are_listed(shop: Path) -> None:
    (shop / "items.csv").write_text(
        "id,Name,Image URL,Vendor\n00123,Ring,,A\nb-2,Cup,,\n\xe9-3,Bow,,\n"
    )
    code, output = run(shop)
    assert code == 0
    assert "    Name       title\n    Vendor     brand\n    Image URL  image_link\n" in output
    assert json.loads(run(shop, "--json")[1])["files"]["items.csv"]["mapped"]["Name"] == "title"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lost_rows_exit_with_1_and_the_report_fits_the_terminal(shop: Path, width: int) -> None:
    with (shop / "events.csv").open("a") as events:
        events.write("u3,b-2,juggle,1735689600\n" * 40 + "u3,x9,view,noon\n")
    code, output = run(shop, width=width)
    assert code == 1
    assert max(map(len, output.splitlines())) <= width
    words = " ".join(output.split())
    assert "event_type: 40 rows left out, such as row 5: 'juggle'" in words
    assert "timestamp: 1 row left out, row 45: 'noon'" in words


def test_as_json(shop: Path) -> None:
    with (shop / "events.csv").open("a") as events:
        events.write("u3,x9,view,1735689600\n")
    code, output = run(shop, "--json")
    report = json.loads(output)
    assert code == 1
    assert report["files"]["events.csv"]["rows_kept"] == 3
    assert report["problems"][0]["rows"] == [5]
    (shop / "items.csv").unlink()
    code, output = run(shop, "--json")
    assert (code, list(json.loads(output))) == (1, ["error"])


def test_a_file_of_products_alone(shop: Path) -> None:
    assert run(shop / "items.csv") == (0, "items.csv: 3 rows read, 3 kept\n")


def test_wrong_usage_ends_with_2(shop: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere")[0] == 2
    assert run(shop, "--out", shop)[0] == 2
    assert sorted(path.name for path in shop.iterdir()) == ["events.csv", "images", "items.csv"]


def test_a_catalogue_that_cannot_be_read_ends_with_1(tmp_path: Path) -> None:
    code, output = run(tmp_path)
    assert code == 1
    assert "holds none of items" in output


def test_the_copy_is_the_same_catalogue_and_clean(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "canonical"
    assert run(shop, "--out", out)[0] == 0
    first, again = read_catalog(shop), read_catalog(out, strict=True)
    assert again.items["id"].tolist() == ["00123", "b-2", "\xe9-3"]
    assert again.items["price"].tolist()[:2] == [1299, 79.5]
    assert again.items["image_link"].tolist() == ["images/ring.jpg", None, None]
    pd.testing.assert_frame_equal(first.items, again.items)
    pd.testing.assert_frame_equal(first.events, again.events)
    assert first.products() == again.products()
    assert again.baskets is None
    assert again.image_path(0).read_bytes() == first.image_path(0).read_bytes()
    assert again.report.mapped == {"items.parquet": (), "events.parquet": ()}
    assert {*ITEM_COLUMNS, "mood", "stock count"} == {*again.items}
    assert tuple(again.events) == EVENT_COLUMNS
    assert run(out)[0] == 0
    assert [path.name for path in out.parent.iterdir()] == ["canonical"]


def test_own_columns_of_any_type_are_written(shop: Path, tmp_path: Path) -> None:
    catalog = read_catalog(shop)
    catalog.items["odd"] = pd.Series([1, "a", [2, b"\xff"]], dtype=object)
    write_catalog(catalog, tmp_path / "out")
    assert read_catalog(tmp_path / "out").items["odd"].tolist()[:2] == ["1", "a"]


def test_a_failed_copy_leaves_no_files(shop: Path, tmp_path: Path) -> None:
    catalog = read_catalog(shop)
    catalog.image_path(0).unlink()
    with pytest.raises(SetupError, match="cannot write"):
        write_catalog(catalog, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
