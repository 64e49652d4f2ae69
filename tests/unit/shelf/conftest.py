"""A tiny model's archive, unpacked and packed, and an event store in SQLite."""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import load_index
from newshelf.serving.index_write import write_index
from newshelf.shelf.model import ShelfModel
from newshelf.store.store import EventStore
from tests.served_model import VERSION, items_frame
from tests.unit.export.tiny_checkpoint import BLEND_WEIGHTS, tiny_blend

CONFIG = "serving: {runtime: torchscript}\n"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """Archive of a recommender with links, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked") / VERSION
    shutil.copytree(bundle, folder)
    (folder / "model-config.yaml").write_text(CONFIG)
    index = load_index(bundle / "index", encoder_version=VERSION)
    write_index(
        folder / "index",
        encoder_version=VERSION,
        items=items_frame(),
        embeddings=np.array(index.embeddings),
        vectors=np.array(index.vectors),
        blend=tiny_blend(BlendSpec(weights=BLEND_WEIGHTS), items=30),
        pooling=index.manifest.pooling,
    )
    return folder


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory, unpacked: Path) -> Path:
    """Folder with the archive of version ``VERSION``."""
    folder = tmp_path_factory.mktemp("model_store")
    with zipfile.ZipFile(folder / f"recommender-{VERSION}.mar", "w") as archive:
        archive.writestr("newshelf/code.py", "raise RuntimeError")
        for path in sorted(unpacked.rglob("*")):
            archive.write(path, path.relative_to(unpacked))
    return folder


@pytest.fixture(scope="session")
def model(unpacked: Path) -> ShelfModel:
    """Encoder and index of the archive."""
    return ShelfModel(unpacked)


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    """An empty event store."""
    with EventStore.open(store_url) as opened:
        yield opened
