"""A worker's GPU: which it is given, how much of it, and what it does when it is lost."""

import os
from pathlib import Path

import pytest
import torch

from handlers.adapter import LOST_GPU, Adapter, end_with_lost_gpu
from newshelf.serving.runtimes.base import Device


class Opened(Adapter):
    def load(self, directory, **options):
        return options["device"]


@pytest.mark.parametrize(
    ("gpu", "share", "device"),
    [
        (None, 0.25, Device()),
        ("1", 0.25, Device("cuda", 1, 0.25)),
        # Of an archive that was written before there was a limit.
        (0, 0.0, Device("cuda", 0, 1.0)),
    ],
)
def test_a_worker_takes_its_share_of_the_gpu_it_was_assigned(gpu, share, device):
    worker = Opened()
    worker._open(Path("any"), gpu, {"serving": {"gpu_memory": share}})
    assert worker.predictor == device


def lost(*_):
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def test_a_worker_whose_gpu_is_lost_ends(monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    end_with_lost_gpu(Device())
    assert codes == []
    end_with_lost_gpu(Device("cuda", 1))
    assert codes == [LOST_GPU]


def test_a_worker_whose_gpu_answers_stays(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("it ended"))
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    end_with_lost_gpu(Device("cuda", 1))
    assert asked == [1]
