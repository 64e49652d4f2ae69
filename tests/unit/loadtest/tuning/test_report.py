import tomllib
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from loadtest.slo import parse_slo
from loadtest.tuning.report import frontier_table, settings_text, write_report
from loadtest.tuning.search import SearchResult
from loadtest.tuning.tune import PointLoad
from newshelf.config import ModelServingSettings, Settings, load_settings
from newshelf.files import read_json
from newshelf.report.page import print_table
from tests.unit.loadtest.tuning.conftest import MakeRun

SLO = parse_slo("p99=50ms")
LOAD = PointLoad("encoder", 8, 10.0)
OWN = """
seed = 3

[text]
weights = 'a "quoted" päth'

[evaluation]
k = [5, 10]

[archive]
runtime = "torchscript"

[archive.encoder]
workers = 9
queue_size = 77

[archive.recommender]
batch_size = 2
"""


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return load_settings(path)


@pytest.fixture
def found(run: MakeRun) -> SearchResult:
    best = run(90, 40, batch=4)
    return SearchResult([best, run(120, 60, missed=True, batch=16), run(80, 45, batch=1)], best, 72)


def test_the_settings_are_the_users_with_the_best_point(
    found: SearchResult, own: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "tuned.toml"
    path.write_text(settings_text(own, found, LOAD, SLO))
    tuned = load_settings(path)
    assert tuned.archive.encoder == ModelServingSettings(
        workers=1, threads=2, batch_size=4, max_batch_delay_ms=3, queue_size=77
    )
    assert tuned.archive.runtime == "onnxruntime"
    assert tuned.model_copy(update={"archive": own.archive}) == own
    assert tuned.archive.recommender == own.archive.recommender
    # Defaults stay the program's, so that a later version may choose better ones.
    assert "finetune" not in tomllib.loads(path.read_text())


def test_all_files_are_written_and_the_plot_is_a_picture(
    found: SearchResult, own: Settings, tmp_path: Path
) -> None:
    written = write_report(found, own, LOAD, SLO, "batchSize: 4\n", tmp_path / "out" / "e.toml")
    assert written.settings == tmp_path / "out" / "e.toml"
    assert written.model_config is not None
    assert written.model_config.read_text() == "batchSize: 4\n"
    with Image.open(written.plot) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
    results = read_json(written.results)
    assert [one["best"] for one in results["runs"]] == [True, False, False]
    assert (results["points"], results["slo"]) == (72, "p99=50ms")
    assert results["runs"][1]["missed"] == ["p99 is too long"]


def test_no_settings_are_written_if_none_meets_the_slo(
    run: MakeRun, own: Settings, tmp_path: Path
) -> None:
    nearest = run(10, 90, missed=True)
    failed = run(0, float("inf"), missed=True, batch=1)
    found = SearchResult([nearest, failed], nearest, 2)
    written = write_report(found, own, LOAD, SLO, "", tmp_path / "e.toml")
    assert written.settings is None
    assert not (tmp_path / "e.toml").exists()
    assert read_json(written.results)["runs"][1]["p99_ms"] is None


def test_the_table_shows_the_frontier_and_the_choice(found: SearchResult) -> None:
    console = Console(width=100, record=True)
    print_table(frontier_table(found, SLO), console)
    lines = console.export_text().splitlines()
    [chosen] = [line for line in lines if "chosen" in line]
    assert "1 × 2 onnxruntime fp32" in chosen
    assert "90" in chosen
    assert any("too long" in line and "120" in line for line in lines)
    # Beaten in both by the best.
    assert not any(" 80 " in line for line in lines)
