"""The page of ``./run analyse``; what it computes is tested with the evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from newshelf.attributes.build import FACTS_FILE, write_facts
from newshelf.attributes.lexicon import Fact
from newshelf.cli.app import app


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    shop = tmp_path / "shop"
    shop.mkdir()
    Image.new("RGB", (30, 20), "red").save(shop / "red.png")
    lines = [f"i{n},Oak bed {n},Home > Beds,{'red.png' if n < 20 else ''}" for n in range(24)]
    header = "id,title,product_type,image_link"
    (shop / "items.csv").write_text("\n".join([header, *lines]))
    return ["analyse", "--catalog", str(shop), "--workspace", str(tmp_path / "w")]


def checkpoint(folder: Path, ids: list[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "ids.json").write_text(json.dumps(ids))
    rows = np.random.default_rng(0).normal(size=(len(ids), 8)).astype(np.float32)
    save_file({"embeddings": rows}, folder / "embeddings.safetensors")
    (folder / "knowledge").mkdir()
    stated = {"material": "oak", "product_type": "Home > Beds"}
    facts = [Fact(one, *pair, "title", 1.0) for one in ids for pair in stated.items()]
    write_facts(facts, folder / "knowledge" / FACTS_FILE)


def test_the_page_stands_alone_and_says_what_is_unknown(tmp_path: Path, words: list[str]) -> None:
    checkpoint(tmp_path / "w" / "checkpoint", [f"i{n}" for n in range(24)])
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    path = tmp_path / "w" / "analysis" / "report.html"
    assert str(path) in shown.output
    page = path.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2
    assert "oak 100%" in page
    assert "the catalogue has no events" in page
    assert "Trends" not in page
    assert 'src="data:' in page
    assert 'src="http' not in page


def test_trends_and_gaps_of_a_catalogue_with_events(tmp_path: Path, words: list[str]) -> None:
    checkpoint(tmp_path / "w" / "checkpoint", [f"i{n}" for n in range(24)])
    rows = [
        f"u{n},i{n % 24},view,{1_700_000_000 + week * 604_800 + n}"
        for week in range(4)
        for n in range(60)
    ]
    lines = "\n".join(["user_id,item_id,event_type,timestamp", *rows])
    (tmp_path / "shop" / "events.csv").write_text(lines)
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    page = (tmp_path / "w" / "analysis" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1
    assert "Gaps by type and material" in page
    assert "Not offered" in page


@pytest.mark.parametrize("trained", [False, True])
def test_a_catalogue_that_is_not_the_trained_one_is_refused(
    tmp_path: Path, words: list[str], trained: bool
) -> None:
    if trained:
        checkpoint(tmp_path / "w" / "checkpoint", ["other"])
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 1
    assert "train" in shown.output
    assert not (tmp_path / "w" / "analysis").exists()
