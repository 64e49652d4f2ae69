"""What the package offers, and what importing its schema costs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import newshelf.catalog
from newshelf.catalog import read_catalog

DOCS = Path(__file__).parents[3] / "docs" / "catalog.md"


def test_public_names_are_found():
    assert newshelf.catalog.__all__ == [
        "Catalog", "Problem", "Report", "read_catalog", "write_catalog",
    ]  # fmt: skip
    for name in newshelf.catalog.__all__:
        assert getattr(newshelf.catalog, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = newshelf.catalog.nothing


def test_the_schema_loads_no_pandas():
    code = "import sys, newshelf.catalog.schema; sys.exit('pandas' in sys.modules)"
    root = Path(newshelf.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == 0


def test_the_example_of_the_documentation_is_a_catalogue(tmp_path):
    blocks = re.findall(r"`(\w+)\.csv`:?\n\n```csv\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert [name for name, _ in blocks] == ["items", "events", "baskets"]
    for name, text in blocks:
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "ring.jpg").write_bytes(b"a picture")
    catalog = read_catalog(tmp_path, strict=True)
    assert len(catalog.items) == 3
    assert catalog.events is not None
    assert catalog.baskets is not None
