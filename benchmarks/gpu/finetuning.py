"""Fine-tuning of the whole image tower in bfloat16, on the device and on the CPU."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.command import GpuContext
from benchmarks.gpu.models import seeded_encoder
from benchmarks.gpu.pictures import SMALL, photograph
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from newshelf.training.picture_data import PictureSet
from newshelf.training.run import Run, Tracker
from newshelf.training.tower_tuning import Activations, TowerSettings, tune_tower

_CLASSES = tuple("abcdefgh")
_EPOCHS = 3
_DRAWN = 64
_SPEED = "pictures/s"
_BUSY = "share of the time that is not spent on pictures"
_BUSY_GOAL = 0.8
_ON_CPU = 4
"""The CPU gets a quarter of the pictures: it takes that much longer."""


@dataclass
class _Clock(Tracker):
    """Keeps when each epoch ended."""

    ends: list[float] = field(default_factory=list)

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Keep the time."""
        del name, step, values
        self.ends.append(time.perf_counter())


@dataclass(frozen=True)
class _Epochs:
    """All epochs but the first, which is a warm-up."""

    per_second: float
    """Pictures."""
    busy: float
    """Share of the time outside of augmentation and normalisation."""


def run(context: GpuContext) -> TaskResult:
    """Tune the tower of the model of pictures."""
    context.require_device()
    on_device = _tune(context, context.torch_device, context.scale.trained)
    on_cpu = _tune(context, torch.device("cpu"), max(16, context.scale.trained // _ON_CPU))
    name = str(context.torch_device)
    return TaskResult(
        task="finetuning",
        title="Fine-tuning",
        protocol=(
            f"All stages of {context.scale.image} in bfloat16, pictures of {_size(context)} "
            f"pixels in batches of 32, {_EPOCHS} epochs, of which the first does not count. "
            "Pictures are augmented in every epoch; that and their normalisation are waited for, "
            "so that the share is what the device would idle without overlap."
        ),
        rows=[
            Row(_SPEED, name, [on_device.per_second]),
            Row(_SPEED, "CPU", [on_cpu.per_second], baseline=True),
            Row(_BUSY, name, [on_device.busy]),
        ],
        goals=[Goal(_BUSY, _BUSY_GOAL)],
        percent=False,
    )


def _size(context: GpuContext) -> int:
    return min(160, context.scale.size)


def _tune(context: GpuContext, device: torch.device, pictures: int) -> _Epochs:
    model = context.model(text=False)
    tower = seeded_encoder(model.spec.encoder, context.scale).image_tower
    if tower is None:
        raise BenchmarkError("the model has no image tower")
    size = _size(context)
    drawn = [
        np.array(photograph(SMALL, seed).resize((size, size)))
        for seed in range(min(pictures, _DRAWN))
    ]
    squares = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    rows = torch.arange(pictures)
    clock, spent = _Clock(), 0.0
    make_inputs = Activations.training_inputs

    def timed(self: Activations, batch: Tensor) -> Tensor:
        nonlocal spent
        context.wait()
        start = time.perf_counter()
        made = make_inputs(self, batch)
        context.wait()
        if clock.ends:
            spent += time.perf_counter() - start
        return made

    settings = TowerSettings(
        mode="full", stage=-1, grids=(1,), size=size, epochs=_EPOCHS, thaw_epochs=0, validation=0
    )
    with patch.object(Activations, "training_inputs", timed):
        tune_tower(
            f"{context.scale.name} {device}",
            tower,
            model.image,
            PictureSet(rows, squares[rows % len(squares)]),
            rows % len(_CLASSES),
            _CLASSES,
            settings,
            Run(seed=1, console=context.console, tracker=clock, quiet=True),
            device=device,
        )
    seconds = clock.ends[-1] - clock.ends[0]
    return _Epochs((len(clock.ends) - 1) * pictures / seconds, 1 - spent / seconds)
