import json
import zipfile
from pathlib import Path

import pytest
import ts
import yaml

from export.archive import archive
from newshelf.config import ArchiveSettings, Settings
from newshelf.errors import ParityError, SetupError, VersionMismatch
from newshelf.files import read_json, write_json
from newshelf.serving.settings import read_version

DESCRIPTION = {"MAR-INF", "handlers", "model-config.yaml", "model.json", "newshelf", "parity.json"}
DESCRIPTION |= {"golden.json", "sitecustomize.py", "tokenizer.json", "version.json"}
GRAPHS = {"encoder": {"encoder"}, "recommender": {"encoder", "projector", "scorer"}}


def copy_of(export_dir, folder):
    """The export with files of its own where a test changes them."""
    folder.mkdir()
    for path in export_dir.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def change(path, **values):
    table = read_json(path)
    path.unlink()
    write_json(path, {**table, **values})


@pytest.mark.parametrize("model", ["encoder", "recommender"])
@pytest.mark.parametrize(
    ("runtime", "suffixes"),
    [("onnxruntime", [".onnx"]), ("torchscript", [".pt"]), ("openvino", [".xml", ".bin"])],
)
def test_archive_holds_what_its_runtime_needs_and_no_more(unpacked, model, runtime, suffixes):
    folder = unpacked(runtime, model)
    expected = DESCRIPTION | {f"{model}_handler.py"}
    expected |= {f"{graph}{suffix}" for graph in GRAPHS[model] for suffix in suffixes}
    expected |= {"index"} if model == "recommender" else set()
    assert {path.name for path in folder.iterdir()} == expected
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    assert not list(folder.rglob("__pycache__"))


def test_both_archives_carry_the_model_card(export_dir, tmp_path):
    card = tmp_path / "card"
    card.mkdir()
    names = {"model-card.md", "model-card.json"}
    for name in names:
        (card / name).write_text("{}")
    settings = Settings(archive=ArchiveSettings(runtime="onnxruntime"))
    paths = archive(export_dir, settings, tmp_path / "store", card=card)
    assert len(paths) == 2
    for path in paths:
        with zipfile.ZipFile(path) as packed:
            assert names <= {*packed.namelist()}
            assert packed.read("model-card.json") == b"{}"


@pytest.mark.parametrize("model", ["encoder", "recommender"])
def test_manifest_names_model_version_handler_and_graph(unpacked, model):
    folder = unpacked("onnxruntime", model)
    named = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]
    assert named == {
        "modelName": model,
        "modelVersion": read_version(folder),
        "handler": f"{model}_handler.py",
        "serializedFile": "encoder.onnx",
        "configFile": "model-config.yaml",
    }


def test_each_model_has_its_own_settings(unpacked):
    encoder, recommender = (
        yaml.safe_load((unpacked("torchscript", model) / "model-config.yaml").read_text())
        for model in ("encoder", "recommender")
    )
    assert (encoder["batchSize"], recommender["batchSize"]) == (8, 3)
    assert encoder["serving"]["runtime"] == recommender["serving"]["runtime"] == "torchscript"


def test_no_name_at_the_root_is_the_servers(unpacked):
    # Its own folder comes first on a worker's path, so such a name would load its module.
    theirs = {path.name for path in Path(ts.__path__[0]).iterdir()}
    ours = {path.name for path in unpacked("onnxruntime", "recommender").iterdir()}
    assert "service.py" in theirs
    assert not ours & theirs


def test_archives_are_named_after_the_version_and_replace_their_like(tmp_path, export_dir):
    store = tmp_path / "store"
    version = read_version(export_dir)
    names = [f"encoder-{version}.mar", f"recommender-{version}.mar"]
    for runtime in ("onnxruntime", "torchscript"):
        settings = Settings(archive=ArchiveSettings(runtime=runtime))
        paths = archive(export_dir, settings, store)
        assert paths == [store / name for name in names]
        assert sorted(path.name for path in store.iterdir()) == names
    with zipfile.ZipFile(paths[0]) as file:
        assert "encoder.pt" in file.namelist()
        assert "encoder.onnx" not in file.namelist()


def test_a_label_makes_another_version_of_the_same_model(tmp_path, export_dir):
    version = f"{read_version(export_dir)}-fp32"
    paths = archive(export_dir, Settings(), tmp_path / "store", label="-fp32")
    assert [path.name for path in paths] == [f"encoder-{version}.mar", f"recommender-{version}.mar"]
    with zipfile.ZipFile(paths[1]) as file:
        index, own = (json.loads(file.read(name)) for name in ("index/index.json", "version.json"))
        manifest = json.loads(file.read("MAR-INF/MANIFEST.json"))
        assert set(file.namelist()) >= {
            f"index/{path.name}" for path in (export_dir / "index").iterdir()
        }
    found = own["model_version"], index["encoder_version"], manifest["model"]["modelVersion"]
    assert found == (version, version, version)
    before = read_json(export_dir / "index" / "index.json")
    assert {**index, "encoder_version": None} == {**before, "encoder_version": None}
    assert read_version(export_dir) + "-fp32" == version, "the export is left alone"


def test_place_of_the_store_may_hold_what_the_archiver_takes_for_patterns(tmp_path, export_dir):
    store = tmp_path / "store, with [brackets]"
    for path in archive(export_dir, Settings(), store):
        assert zipfile.is_zipfile(path)


def test_graphs_that_did_not_pass_are_refused(tmp_path, export_dir):
    folder = copy_of(export_dir, tmp_path / "export")
    change(folder / "parity.json", passed=False)
    with pytest.raises(ParityError, match="did not pass"):
        archive(folder, Settings(), tmp_path / "store")


def test_report_of_another_model_is_refused(tmp_path, export_dir):
    folder = copy_of(export_dir, tmp_path / "export")
    change(folder / "parity.json", model_version="0123456789ab")
    with pytest.raises(ParityError):
        archive(folder, Settings(), tmp_path / "store")


def test_index_of_another_model_is_refused(tmp_path, export_dir):
    folder = copy_of(export_dir, tmp_path / "export")
    index = folder / "index"
    index.unlink()
    index.mkdir()
    manifest = read_json(export_dir / "index" / "index.json")
    write_json(index / "index.json", {**manifest, "encoder_version": "0123456789ab"})
    with pytest.raises(VersionMismatch, match="0123456789ab"):
        archive(folder, Settings(), tmp_path / "store")


@pytest.mark.parametrize("name", ["encoder.onnx", "scorer.onnx", "index", "parity.json"])
def test_missing_file_is_named_and_nothing_is_left(tmp_path, export_dir, name):
    folder = copy_of(export_dir, tmp_path / "export")
    (folder / name).unlink()
    store = tmp_path / "store"
    with pytest.raises(SetupError, match=rf"{name}\S* is missing: export"):
        archive(folder, Settings(), store)
    left = [path.name for path in store.iterdir()] if store.exists() else []
    assert not [path for path in left if path.startswith((".", "recommender"))]
