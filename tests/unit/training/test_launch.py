"""Launching a training job in one process, and in two through torchrun."""

import contextlib
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.config import Settings
from newshelf.errors import TrainingError
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.training import launch as jobs
from newshelf.training.launch import TrainJob, _identity, launch, run_job
from tests.unit.training.conftest import shop_events, shop_items


@pytest.fixture
def job(write_catalog, tmp_path, tiny_settings) -> TrainJob:
    catalog = write_catalog(items=shop_items(48, tmp_path / "shop"), events=shop_events())
    return TrainJob(
        catalog=catalog.folder,
        settings=tiny_settings,
        out=tmp_path / "out",
        features=tmp_path / "features",
        state=tmp_path / "state",
        runs=tmp_path / "runs",
        identity="same",
    )


def test_two_processes_train_one_model_and_the_first_says_so_once(job, capfd, said):
    launch(job, 2, said.console)
    loaded = load_checkpoint(job.out)
    _, embeddings = loaded.embeddings()
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(48))
    training = json.loads((job.out / "training.json").read_text())
    assert len(training["finetune"][0]["losses"]) == 3
    assert training["scorer_losses"][-1] < training["scorer_losses"][0]
    printed = "".join(capfd.readouterr())
    assert printed.count("source category: Home") == 1
    assert len(list(job.runs.iterdir())) == 1
    assert (job.state / "source.pt").is_file()


def test_what_a_process_said_last_is_the_error(job, capfd, said):
    finetune = job.settings.finetune.model_copy(update={"source": "Cars"})
    bad = replace(job, settings=job.settings.model_copy(update={"finetune": finetune}))
    with pytest.raises(TrainingError, match=r"^\[finetune\] source = 'Cars'"):
        launch(bad, 2, said.console)
    assert "Traceback" not in "".join(capfd.readouterr())
    assert not job.out.exists()


def test_a_verb_under_torchrun_is_told_how_to_do_it(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    result = CliRunner().invoke(app, ["train"])
    assert result.exit_code == 1
    assert "--processes N" in result.output


def test_a_run_under_torchrun_is_another_one_with_other_data_settings_or_processes(
    job, tmp_path, monkeypatch
):
    """What was kept of one must not be taken up by another."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    first = _identity(job.catalog, job.settings)
    assert _identity(job.catalog, job.settings) == first
    found = {first, _identity(job.catalog, job.settings.model_copy(update={"seed": 99}))}
    monkeypatch.setenv("WORLD_SIZE", "3")
    found.add(_identity(job.catalog, job.settings))
    (job.catalog / "images" / "0.png").write_bytes(b"another picture")
    found.add(_identity(job.catalog, job.settings))
    assert len(found) == 4


def test_processes_are_at_least_one():
    assert CliRunner().invoke(app, ["train", "--processes", "0"]).exit_code == 2


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ("id,title,colr\n1,Ring,red\n", "note: items.csv: the column 'colr' is kept as it is"),
        ("id,title,price\n1,Ring,cheap\n", "price: 1 cell left out, row 2: 'cheap'"),
        ("id,title\n1,Ring\n", "items.csv: 1 rows read, 1 kept"),
    ],
)
def test_notes_and_problems_are_printed(tmp_path, monkeypatch, items, said):
    monkeypatch.setattr(jobs, "start_run", lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(jobs, "train", lambda *args, **kwargs: None)
    (tmp_path / "items.csv").write_text(items)
    console = Console(width=200, record=True)
    run_job(
        TrainJob(tmp_path, Settings(), *(tmp_path / name for name in "abcd"), identity="one"),
        console,
    )
    assert said in console.export_text()
