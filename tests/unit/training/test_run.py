"""What trackers write is read back by the libraries' own readers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from newshelf.config import Settings, TrackingSettings
from newshelf.errors import SettingsError
from newshelf.training.run import Tracker, make_tracker, register_version, start_run

ROOT = Path(__file__).resolve().parents[3]


def tracker_of(tmp_path: Path, name: str = "one", **settings):
    return make_tracker(
        TrackingSettings(**settings), tmp_path / "runs", name, {"seed": 7, "finetune.epochs": 3}
    )


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_tensorboard_has_every_value_before_it_is_closed(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    tracker = tracker_of(tmp_path, kind="tensorboard", folder=folder)
    tracker.log("source", 0, {"loss": 2.0, "color": 1.5})
    tracker.log("source", 1, {"loss": 1.0})
    where = tmp_path / (folder or "runs") / "one"
    assert scalars(where, "source/loss") == [(0, 2.0), (1, 1.0)]
    assert scalars(where, "source/color") == [(0, 1.5)]
    tracker.close()
    texts = EventAccumulator(str(where)).Reload().Tensors("settings/text_summary")
    assert b'"finetune.epochs": 3' in texts[0].tensor_proto.string_val[0]


def test_tensorboard_of_a_resumed_run_goes_on_in_the_same_folder(tmp_path):
    for step in range(2):
        tracker = tracker_of(tmp_path, kind="tensorboard")
        tracker.log("source", step, {"loss": float(step)})
        tracker.close()
    assert scalars(tmp_path / "runs" / "one", "source/loss") == [(0, 0.0), (1, 1.0)]


@pytest.fixture
def mlflow_client(tmp_path):
    # The tracker sets these; a reader has to say them himself.
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
    from mlflow import MlflowClient  # noqa: PLC0415

    uri = (tmp_path / "runs").as_uri()
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_mlflow_has_values_and_settings_and_how_it_ended(tmp_path, mlflow_client):
    tracker = tracker_of(tmp_path, kind="mlflow")
    tracker.log("source", 0, {"loss": 2.0})
    tracker.log("source", 1, {"loss": 1.0})
    tracker.close()
    experiment = mlflow_client.get_experiment_by_name("newshelf")
    (run,) = mlflow_client.search_runs([experiment.experiment_id])
    history = mlflow_client.get_metric_history(run.info.run_id, "source/loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 2.0), (1, 1.0)]
    assert run.data.params == {"seed": "7", "finetune.epochs": "3"}
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")

    again = tracker_of(tmp_path, kind="mlflow")
    again.log("source", 2, {"loss": 0.5})
    again.close(failed=True)
    other = tracker_of(tmp_path, name="two", kind="mlflow")
    other.close()
    runs = {run.info.run_name: run for run in mlflow_client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"one", "two"}
    assert runs["one"].info.status == "FAILED"
    assert len(mlflow_client.get_metric_history(run.info.run_id, "source/loss")) == 3


def test_mlflow_says_what_it_can_write_to(tmp_path):
    with pytest.raises(SettingsError, match=r"\[tracking\] MLflow .*nowhere:///x"):
        tracker_of(tmp_path, kind="mlflow", uri="nowhere:///x")


CARD = {
    "version": "abc",
    "catalog": "shop",
    "settings": {"finetune.epochs": 3},
    "evaluation": {
        "splits": [
            {
                "name": "cold",
                "k": [10],
                "model": "blend",
                "rankers": [
                    {"name": "content", "ndcg": {"10": 0.2}, "recall": {"10": 0.3}},
                    {"name": "blend", "ndcg": {"10": 0.4}, "recall": {"10": 0.5}},
                ],
            }
        ]
    },
}


def test_mlflow_registers_a_version_once_with_card_and_metrics(
    tmp_path, mlflow_client, said, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in ("model-card.md", "model-card.json", "archives.json"):
        (folder / name).write_text("{}")
    settings = TrackingSettings(kind="mlflow")
    for version in ("abc", "abc", "def"):
        card = {**CARD, "version": version}
        register_version(settings, tmp_path / "runs", card, folder, said.console)
    found = mlflow_client.search_model_versions("name = 'newshelf-recommender'")
    assert {one.tags["version"]: one.version for one in found} == {"abc": 1, "def": 2}
    (one,) = [one for one in found if one.version == 1]
    run = mlflow_client.get_run(one.run_id)
    assert (run.data.metrics, run.data.params) == (
        {"cold/ndcg": 0.4, "cold/recall": 0.5},
        {"finetune.epochs": "3"},
    )
    assert run.info.status == "FINISHED"
    kept = {item.path for item in mlflow_client.list_artifacts(one.run_id)}
    assert kept == {"model-card.md", "model-card.json"}
    # Nothing is left in the working directory.
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "runs"}
    assert said.text == ""


def test_a_version_that_cannot_be_registered_is_no_error(tmp_path, said):
    for kind, uri in (("mlflow", "nowhere:///x"), ("none", ""), ("tensorboard", "")):
        settings = TrackingSettings(kind=kind, uri=uri)
        register_version(settings, tmp_path / "runs", CARD, tmp_path, said.console)
    assert said.text.startswith("the version is not registered: [tracking] MLflow cannot write")
    assert not (tmp_path / "runs").exists()


def test_none_writes_nothing(tmp_path):
    tracker = tracker_of(tmp_path, kind="none")
    assert type(tracker) is Tracker
    tracker.log("source", 0, {"loss": 2.0})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_name_until_it_is_another_one(tmp_path, said):
    settings = Settings(tracking=TrackingSettings(kind="none"))
    state = tmp_path / "state"

    def begin(identity: str) -> str:
        with start_run(settings, said.console, state=state, identity=identity, runs=tmp_path):
            return (state / "started.json").read_text()

    first = begin("a")
    assert begin("a") == first
    assert said.text.count("resuming the training that began at") == 1
    assert begin("b") != first
    assert said.text.count("resuming") == 1


def test_an_error_is_what_the_tracker_is_told(tmp_path, said, mlflow_client):
    settings = Settings(tracking=TrackingSettings(kind="mlflow"))
    with (
        pytest.raises(RuntimeError, match="broke"),
        start_run(
            settings, said.console, state=tmp_path / "s", identity="a", runs=tmp_path / "runs"
        ),
    ):
        raise RuntimeError("it broke")
    experiment = mlflow_client.get_experiment_by_name("newshelf")
    (run,) = mlflow_client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.params["fusion.kind"] == "attention"


def test_neither_library_is_loaded_unless_it_is_used():
    code = (
        "import sys\nimport newshelf.training.launch\n"
        "sys.exit('mlflow' in sys.modules or 'tensorboard' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
