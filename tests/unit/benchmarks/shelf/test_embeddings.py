"""The benchmark of embedding a catalogue, on a tiny model in one process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.shelf.embeddings import benchmark_products, measure


@pytest.fixture
def archive(tmp_path: Path, bundle: Path) -> Path:
    folder = tmp_path / "archive"
    shutil.copytree(bundle, folder)
    (folder / "model-config.yaml").write_text("serving: {runtime: torchscript}")
    return folder


def test_products_with_pictures_are_followed_by_their_texts_and_measured(
    archive: Path, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "ring.png").write_bytes(picture())
    rows = [f"p{at},jade ring {at},{'ring.png' if at % 2 else ''}" for at in range(120)]
    (shop / "items.csv").write_text("\n".join(["id,title,image_link", *rows]))
    products = benchmark_products(shop)
    assert [product.id for product in products[:2]] == ["p1", "p3"]
    assert [product.picture is None for product in products] == [False] * 60 + [True] * 60
    found = measure("one process", archive, products, tmp_path / "out")
    # Files of 50 products, the first of which is not measured.
    assert len([*(tmp_path / "out").iterdir()]) == 3
    assert len(found) == 3
    assert all(value > 0 for value in found.values())
