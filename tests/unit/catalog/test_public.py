"""The documented examples, and what importing the schema costs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

import newshelf
from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.columns import parse_price
from newshelf.cli.app import app

DOCS = Path(__file__).parents[3] / "docs" / "catalog.md"


def test_the_schema_loads_no_pandas():
    code = "import sys, newshelf.catalog.schema; sys.exit('pandas' in sys.modules)"
    root = Path(newshelf.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == 0


def write_example(folder):
    blocks = re.findall(r"`(\w+)\.csv`:?\n\n```csv\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert [name for name, _ in blocks] == ["items", "events", "baskets"]
    for name, text in blocks:
        (folder / f"{name}.csv").write_text(text)
    (folder / "images").mkdir()
    (folder / "images" / "ring.jpg").write_bytes(b"a picture")


def test_the_example_of_the_documentation_is_a_catalogue(tmp_path):
    write_example(tmp_path)
    catalog = read_catalog(tmp_path, strict=True)
    assert len(catalog.items) == 3
    assert catalog.events is not None
    assert catalog.baskets is not None


def test_the_documented_commands_do_what_is_said(tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    write_example(tmp_path / "shop")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\./run (catalog check .*)$", DOCS.read_text(), flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command))
        assert done.exit_code == 0, done.output
        assert "items.csv: 3 rows read, 3 kept" in done.output
    assert read_catalog(tmp_path / "canonical", strict=True).image_path(0).is_file()


def test_the_documented_spellings_are_read():
    line = next(line for line in DOCS.read_text().splitlines() if line.startswith("| price | `"))
    read, unread = line.split("|")[2:4]
    for cell in re.findall("`([^`]+)`", read):
        assert parse_price(pd.Series([cell])).reasons.isna().all(), cell
    for cell in re.findall("`([^`]+)`", unread):
        assert parse_price(pd.Series([cell])).reasons.notna().all(), cell
