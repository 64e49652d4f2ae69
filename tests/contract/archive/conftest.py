import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from export.archive import archive
from export.index import build_index, export_golden
from newshelf.catalog.catalog import read_catalog
from newshelf.config import ArchiveSettings, RecommenderServingSettings, Settings
from tests.unit.export.tiny_checkpoint import IDS, WORDS, shared_export

DRIVER = Path(__file__).with_name("drive.py")


@pytest.fixture(scope="session")
def export_dir(tmp_path_factory, worker_id):
    """A whole export: graphs, index, and what describes them; not to be changed."""
    checkpoint, exported = shared_export(tmp_path_factory, worker_id)
    folder = tmp_path_factory.mktemp("whole")
    catalog = folder / "catalog"
    catalog.mkdir()
    titles = [f"{WORDS[at]} {WORDS[at + 1]}" for at in range(len(IDS))]
    items = pd.DataFrame({"id": IDS, "title": titles, "product_type": "Home > Lamps"})
    items.to_csv(catalog / "items.csv", index=False)
    out = folder / "export"
    out.mkdir()
    for path in exported.iterdir():
        (out / path.name).symlink_to(path)
    build_index(checkpoint, read_catalog(catalog), out / "index")
    export_golden(out, read_catalog(catalog))
    return out


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory, export_dir):
    """Archive and unpack, once per runtime: ``unpacked(runtime, model)`` is a folder."""
    made: dict[str, Path] = {}

    def get(runtime, model):
        if runtime not in made:
            made[runtime] = tmp_path_factory.mktemp(runtime)
            settings = Settings(
                archive=ArchiveSettings(
                    runtime=runtime,
                    recommender=RecommenderServingSettings(threads=1, batch_size=3),
                )
            )
            for path in archive(export_dir, settings, made[runtime] / "store"):
                with zipfile.ZipFile(path) as file:
                    file.extractall(made[runtime] / path.name.split("-")[0])
        return made[runtime] / model

    return get


@pytest.fixture(scope="session")
def drive(tmp_path_factory):
    """Answer requests from an unpacked archive, in a process that knows nothing else."""

    def run(folder, model, *bodies):
        requests = [
            ["application/json", body if isinstance(body, str) else json.dumps(body)]
            for body in bodies
        ]
        # -I: neither PYTHONPATH, nor the working directory, nor the script's own folder.
        command = [sys.executable, "-I", DRIVER, folder, f"{model}_handler"]
        done = subprocess.run(
            [*command, f"{model.capitalize()}Handler"],
            input=json.dumps(requests),
            cwd=tmp_path_factory.mktemp("elsewhere"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
