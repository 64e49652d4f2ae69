"""A tiny archive of the recommender."""

from pathlib import Path
from zipfile import ZipFile

import pytest


@pytest.fixture(scope="session")
def archive(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 30 products, of which ``i04`` and ``i11`` are out of stock."""
    path = tmp_path_factory.mktemp("archive") / "recommender-1.2.mar"
    with ZipFile(path, "w") as packed:
        for file in bundle.rglob("*"):
            packed.write(file, file.relative_to(bundle))
        packed.writestr("model-config.yaml", "serving: {runtime: torchscript}\n")
    return path
