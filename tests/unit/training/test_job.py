"""A training job prints what was read of its catalogue, whether or not anything was wrong."""

import contextlib

import pytest
from rich.console import Console

from newshelf.config import Settings
from newshelf.training import launch as jobs
from newshelf.training.launch import TrainJob, run_job


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
