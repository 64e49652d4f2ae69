"""Embeddings of a catalogue, in this process and by Ray, whole and interrupted."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import orjson
import psutil
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from export.embeddings import CatalogEncoder, Shard, encode_by_ray
from newshelf.cli.app import app
from newshelf.errors import SetupError
from newshelf.serving.encode import ProductEncoder
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.protocol import RawRequest
from newshelf.serving.settings import ServingSettings
from newshelf.store.items import ItemColumns, ItemWrite, StoredItem, seeded_item
from tests.served_model import VERSION

TITLES = ["jade ring", "linen shirt", "red lamp", "gold ring", "green lamp"]


def items(titles: Sequence[str] = TITLES, **pictures: Path) -> list[StoredItem]:
    columns = [ItemColumns(id=f"p{at}", title=title) for at, title in enumerate(titles)]
    return [seeded_item(ItemWrite(one, pictures.get(one.id))) for one in columns]


def embed(encoder: CatalogEncoder, out: Path, found: list[StoredItem]) -> list[Shard]:
    """Encode what is missing, two products in a file; return what was."""
    shards = dict(encoder.split(found, rows=2))
    missing = [one for one in shards.items() if not (out / one[0]).exists()]
    assert sum(map(encoder.write, missing)) == sum(len(rows) for _, rows in missing)
    encoder.write_manifest(shards, {})
    return missing


def read(out: Path) -> dict[str, np.ndarray]:
    found = {}
    for name, rows in json.loads((out / "manifest.json").read_text())["files"].items():
        table = parquet.read_table(out / name)
        assert table.num_rows == rows
        embeddings = np.array(table["embedding"].to_pylist())
        found |= dict(zip(table["id"].to_pylist(), embeddings, strict=True))
    return found


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    folder = tmp_path_factory.mktemp("unpacked") / VERSION
    shutil.copytree(bundle, folder)
    (folder / "model-config.yaml").write_text("serving: {runtime: torchscript}")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "embeddings"


@pytest.fixture
def catalog_encoder(unpacked: Path, out: Path) -> CatalogEncoder:
    return CatalogEncoder(unpacked, out)


def test_embeddings_are_those_of_the_worker(
    catalog_encoder: CatalogEncoder, out: Path, unpacked: Path
) -> None:
    embed(catalog_encoder, out, items())
    worker = load_encoder_predictor(unpacked, settings=ServingSettings(runtime="torchscript"))
    (answer,) = worker.predict([RawRequest.unhurried(orjson.dumps({"title": "red lamp"}))])
    assert np.allclose(read(out)["p2"], json.loads(answer.body)["embedding"], atol=1e-5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["model_version"], manifest["rows"], manifest["problems"]) == (VERSION, 5, {})
    assert len(read(out)) == 5


def test_an_interrupted_run_continues_with_the_missing_files(
    catalog_encoder: CatalogEncoder, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = ProductEncoder.encode

    def interrupted(self, inputs, stages):
        if any(one.product.id == "p2" for one in inputs):
            raise KeyboardInterrupt
        return encode(self, inputs, stages)

    with monkeypatch.context() as patch:
        patch.setattr(ProductEncoder, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(catalog_encoder, out, items())
    assert len([*out.iterdir()]) == 1
    # As left by a process that was killed.
    (out / ".part-000001-0.parquet.abc").touch()
    assert [[one.id for one in rows] for _, rows in embed(catalog_encoder, out, items())] == [
        ["p2", "p3"],
        ["p4"],
    ]
    assert len(read(out)) == 5
    assert embed(catalog_encoder, out, items()) == []
    assert not any(path.name.startswith(".") for path in out.iterdir())


def test_what_changes_an_embedding_is_encoded_again(
    catalog_encoder: CatalogEncoder,
    out: Path,
    unpacked: Path,
    tmp_path: Path,
    picture: Callable[..., bytes],
) -> None:
    shown = tmp_path / "ring.png"
    shown.write_bytes(picture())
    embed(catalog_encoder, out, items(p0=shown))
    (tmp_path / "new").write_bytes(picture(size=(50, 40)))
    (tmp_path / "new").replace(shown)
    assert [len(rows) for _, rows in embed(catalog_encoder, out, items(p0=shown))] == [2]
    assert [len(rows) for _, rows in embed(catalog_encoder, out, items([*TITLES[:4], "lamp"]))] == [
        2,
        1,
    ]
    assert len([*out.glob("part-*")]) == 3
    other = tmp_path / "other"
    shutil.copytree(unpacked, other)
    (other / "version.json").write_text('{"model_version": "other"}')
    (other / "index/index.json").write_text(
        (other / "index/index.json").read_text().replace(VERSION, "other")
    )
    assert len(embed(CatalogEncoder(other, out), out, items())) == 3


def test_a_bad_product_is_a_problem_of_its_own(
    catalog_encoder: CatalogEncoder, out: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    found = items(["jade ring", "", "red lamp"], p1=damaged, p2=tmp_path / "missing.png")
    embed(catalog_encoder, out, found)
    # One without a text has nothing left to be encoded.
    assert read(out).keys() == {"p0", "p2"}
    problems = json.loads((out / "manifest.json").read_text())["problems"]
    assert problems.keys() == {"p1", "p2"}
    assert "missing.png" in problems["p2"]
    assert embed(catalog_encoder, out, found) == []
    assert json.loads((out / "manifest.json").read_text())["problems"] == problems


def test_ray_writes_the_same_on_a_cluster_that_nobody_else_reaches(
    catalog_encoder: CatalogEncoder, out: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(catalog_encoder, out, items())
    here = {path.name: path.read_bytes() for path in out.glob("part-*")}
    by_ray = out.with_name("ray")
    before = {*psutil.Process().children(recursive=True)}
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    written = encode_by_ray([*catalog_encoder.split(items(), rows=2)], unpacked, by_ray, None)
    first = next(written)
    started = {*psutil.Process().children(recursive=True)} - before
    used = {one.laddr.ip for process in started for one in process.net_connections()}
    assert {ip.removeprefix("::ffff:") for ip in used} == {"127.0.0.1"}
    assert sorted([first, *written]) == [1, 2, 2]
    assert {path.name: path.read_bytes() for path in by_ray.iterdir()} == here
    assert psutil.wait_procs(started, timeout=60)[1] == []


def test_without_ray_the_error_says_what_to_install(
    unpacked: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(SetupError, match="is not installed"):
        next(encode_by_ray([], unpacked, out, None))


def test_the_verb_encodes_a_catalogue_by_the_archive_of_its_workspace(
    unpacked: Path, tmp_path: Path
) -> None:
    archive = tmp_path / f"recommender-{VERSION}.mar"
    with ZipFile(archive, "w") as packed:
        for path in unpacked.rglob("*"):
            packed.write(path, path.relative_to(unpacked))
    shop = tmp_path / "shop.csv"
    shop.write_text("id,title,image_link\np0,jade ring,\np1,,missing.png\np2,red lamp,\n")
    workspace = tmp_path / "workspace"

    def run() -> tuple[int, str]:
        words = ["embed", "--catalog", str(shop), "--workspace", str(workspace)]
        done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        return done.exit_code, done.output

    code, text = run()
    assert code == 1
    assert "./run archive" in text
    (workspace / "archive").mkdir(parents=True)
    (workspace / "archive/archives.json").write_text(json.dumps([str(archive)]))
    code, text = run()
    assert code == 0, text
    assert "2 embeddings" in text
    assert read(workspace / "embeddings").keys() == {"p0", "p2"}
    before = {path: path.stat().st_mtime_ns for path in (workspace / "embeddings").glob("part*")}
    assert run()[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
