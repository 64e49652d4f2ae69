import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loadtest.tuning.load import ModelName
from loadtest.tuning.server import ExportTools, PointArchives
from newshelf.config import Settings
from tests.unit.loadtest.tuning.conftest import MakePoint


@pytest.fixture
def packed() -> list[str]:
    """The precision of every packing."""
    return []


@pytest.fixture
def tools(packed: list[str]) -> ExportTools:
    def archive(settings: Settings, store: Path) -> list[Path]:
        packed.append(settings.archive.runtime)
        store.mkdir()
        paths = [store / f"{model}-abc.mar" for model in ("encoder", "recommender")]
        for path in paths:
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("model-config.yaml", "old: true\n")
                file.writestr("encoder.onnx", settings.archive.runtime * 100)
                file.writestr("MAR-INF/MANIFEST.json", path.name)
        return paths

    def model_config(settings: Settings, model: ModelName) -> str:
        own = getattr(settings.archive, model)
        return yaml.safe_dump({"batchSize": own.batch_size, "serving": {"cache_bytes": 7}})

    return ExportTools(archive, model_config)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    def read(path: Path) -> dict[str, str]:
        with zipfile.ZipFile(path) as file:
            assert file.testzip() is None
            return {name: file.read(name).decode() for name in file.namelist()}

    return read


def test_a_points_archive_differs_in_its_configuration_alone(
    tmp_path: Path, tools: ExportTools, point: MakePoint, contents: Callable[[Path], dict[str, str]]
) -> None:
    archives = PointArchives("recommender", Settings(), tools, tmp_path)
    inside = contents(archives.make(point(batch=4)))
    assert yaml.safe_load(inside.pop("model-config.yaml"))["batchSize"] == 4
    assert inside == {
        "encoder.onnx": "onnxruntime" * 100,
        "MAR-INF/MANIFEST.json": "recommender-abc.mar",
    }


def test_graphs_are_packed_once_per_arithmetic(
    tmp_path: Path,
    tools: ExportTools,
    packed: list[str],
    point: MakePoint,
    contents: Callable[[Path], dict[str, str]],
) -> None:
    archives = PointArchives("encoder", Settings(), tools, tmp_path)
    for batch in (1, 2, 3):
        for runtime in ("onnxruntime", "torchscript"):
            inside = contents(archives.make(point(batch=batch, runtime=runtime)))
            assert inside["encoder.onnx"].startswith(runtime)
            assert yaml.safe_load(inside["model-config.yaml"])["batchSize"] == batch
    assert packed == ["onnxruntime", "torchscript"]


def test_no_load_is_answered_from_a_cache(
    tmp_path: Path, tools: ExportTools, point: MakePoint, contents: Callable[[Path], dict[str, str]]
) -> None:
    archives = PointArchives("encoder", Settings(), tools, tmp_path)
    config = contents(archives.make(point()))["model-config.yaml"]
    assert yaml.safe_load(config)["serving"]["cache_bytes"] == 0
