"""A real process, killed in the middle of a training, and another that goes on."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from newshelf.config import Settings
from newshelf.nn import checkpoint
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.training.launch import TrainJob, run_job
from newshelf.training.run import LoopCheckpoint, Run
from tests.unit.training.conftest import shop_events, shop_items
from tests.unit.training.processes import GROUP, PROCESSES

pytestmark = pytest.mark.xdist_group(GROUP)


def train_slowly(job: TrainJob, folder: Path, stop_at: str) -> None:
    """Train, and wait for the end at one place; what is printed goes to a file."""
    save_run, save_module = Run.save, checkpoint._save
    saved: dict[str, int] = {}

    def pause(where: str) -> None:
        if where == stop_at:
            (folder / "there").touch()
            time.sleep(600)

    def keeping(self: Run, name: str, progress: LoopCheckpoint) -> None:
        save_run(self, name, progress)
        saved[name] = saved.get(name, 0) + 1
        pause(f"{name} {saved[name]}")

    def saving(module: object, path: Path) -> None:
        save_module(module, path)
        pause(path.name)

    Run.save, checkpoint._save = keeping, saving
    with (folder / "printed").open("w") as file:
        run_job(job, Console(width=200, file=file))


@pytest.fixture
def job(write_catalog, tmp_path, tiny_settings) -> TrainJob:
    catalog = write_catalog(items=shop_items(48, tmp_path / "shop"), events=shop_events())
    settings: Settings = tiny_settings.model_copy(update={"seed": 11})
    return TrainJob(
        catalog=catalog.folder,
        settings=settings,
        out=tmp_path / "out",
        features=tmp_path / "features",
        state=tmp_path / "state",
        runs=tmp_path / "runs",
        identity="same",
    )


def start(job: TrainJob, folder: Path, stop_at: str) -> multiprocessing.Process:
    (folder / "there").unlink(missing_ok=True)
    process = PROCESSES.Process(target=train_slowly, args=(job, folder, stop_at))
    process.start()
    return process


def kill_at(job: TrainJob, folder: Path, stop_at: str) -> str:
    """What it printed until then."""
    process = start(job, folder, stop_at)
    while not (folder / "there").exists():
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return (folder / "printed").read_text()


def finish(job: TrainJob, folder: Path) -> str:
    process = start(job, folder, "nowhere")
    process.join()
    printed = (folder / "printed").read_text()
    assert process.exitcode == 0, printed
    return printed


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def test_killed_again_and_again_it_ends_with_the_same_bytes(job, tmp_path, said):
    assert "resuming" not in kill_at(job, tmp_path, "source 2")
    assert not job.out.exists()
    # Half a checkpoint is written, and is none.
    printed = kill_at(job, tmp_path, "encoder.safetensors")
    assert "after epoch 2 of 3" in printed
    assert not job.out.exists()
    printed = finish(job, tmp_path)
    assert "resuming the training that began at" in printed
    assert "fine-tuning on the source category was done before" in printed
    whole = replace(job, out=tmp_path / "whole", state=tmp_path / "fresh")
    run_job(whole, said.console)
    assert "goes on" not in said.text
    broken = weights(job.out)
    assert broken == weights(whole.out)
    assert set(broken) >= {"encoder.safetensors", "scorer.safetensors", "embeddings.safetensors"}
    assert load_checkpoint(job.out).version == load_checkpoint(whole.out).version
    # One run, one folder of events, however often it was begun.
    assert len(list(job.runs.iterdir())) == 2


def test_killed_while_it_replaces_a_checkpoint_the_old_one_stays(job, tmp_path, said):
    run_job(job, said.console)
    before = weights(job.out)
    settings = job.settings.model_copy(update={"seed": 12})
    kill_at(replace(job, settings=settings, identity="other"), tmp_path, "scorer.safetensors")
    assert weights(job.out) == before
    load_checkpoint(job.out)
