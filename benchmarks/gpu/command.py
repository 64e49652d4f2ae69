"""`./run bench gpu`: tasks, context and command."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from benchmarks.gpu.models import FULL, TINY, GpuModel, Scale, make_model
from benchmarks.records import versions
from benchmarks.report import Heading
from benchmarks.results import BenchmarkError
from benchmarks.suite import Suite, run_suite
from newshelf.config import Precision, RuntimeKind
from newshelf.serving.runtimes.base import Device

TASKS: dict[str, str] = {
    "precision": "benchmarks.gpu.precision:run",
    "encoder": "benchmarks.gpu.inprocess:run_encoder",
    "product": "benchmarks.gpu.inprocess:run_product",
    "mixed": "benchmarks.gpu.mixed:run",
    "finetuning": "benchmarks.gpu.finetuning:run",
    "server": "benchmarks.gpu.served:run",
    "recovery": "benchmarks.gpu.recovery:run",
}

_INTRODUCTION = """\
What one GPU reaches: its answers compared with the CPU's, the encoder in process compared with \
its own decoder and graph, TorchServe compared with both and with FastAPI, and the time after \
which a lost worker is replaced. Models have random weights of a fixed seed, so that the \
benchmark runs where nothing can be downloaded. A task of which the report says `no GPU: not \
measured` has run on no GPU. [GPU](../gpu.md) says how to run it."""
_LIBRARIES = ("torch", "torchvision", "onnxruntime-gpu", "torchserve", "timm", "transformers")
Way = tuple[RuntimeKind, Precision]


@dataclass(frozen=True)
class GpuContext:
    """Argument of every task."""

    device: Device
    scale: Scale
    work: Path
    """Models and the folders of servers."""
    console: Console

    def require_device(self) -> None:
        """Refuse to measure on another device than the one that was asked for.

        Raises:
            BenchmarkError: there is no GPU.
        """
        if self.device.kind == "cuda" and not torch.cuda.is_available():
            raise BenchmarkError("no GPU: not measured")

    @property
    def torch_device(self) -> torch.device:
        """The device as torch's."""
        return torch.device(str(self.device))

    def wait(self) -> None:
        """Wait until the device is idle."""
        if self.device.kind == "cuda":
            torch.cuda.synchronize(self.device.index)

    @cached_property
    def ways(self) -> list[Way]:
        """Runtimes and precisions of the device, the one that is served first."""
        import onnxruntime  # noqa: PLC0415 - torch loads CUDA's libraries before

        if self.device.kind == "cpu":
            return [("torchscript", "fp32")]
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return [("torchscript", "fp32")]
        return [("onnxruntime", "fp16"), ("onnxruntime", "fp32"), ("torchscript", "fp32")]

    def model(self, *, text: bool) -> GpuModel:
        """Return the model of pictures, or that of pictures and texts; made if it is missing."""
        self.require_device()
        onnx = any(runtime == "onnxruntime" for runtime, _ in self.ways)
        return make_model(self.work, self.scale, text=text, onnx=onnx, console=self.console)


def _versions() -> dict[str, str]:
    found = versions(*_LIBRARIES)
    if torch.cuda.is_available():
        found |= {"GPU": torch.cuda.get_device_name(0), "CUDA": torch.version.cuda or ""}
    return found | {"cores": str(len(os.sched_getaffinity(0)))}


SUITE = Suite("gpu", TASKS, Heading("GPU", _INTRODUCTION, repeated="run"), _versions)


def run(
    only: Sequence[str],
    *,
    device: Literal["cpu", "cuda"],
    out: Path | None,
    console: Console,
) -> int:
    """Run the tasks and write the report; see ``run_suite``.

    On the CPU everything is tiny: its figures mean nothing.

    Raises:
        SettingsError: an unknown task.
    """
    rehearsed = device == "cpu"
    # A rehearsal is no result of the documentation.
    if rehearsed and out is None:
        out = SUITE.work() / "rehearsal.md"
    scale = TINY if rehearsed else FULL
    return run_suite(
        SUITE,
        only,
        out,
        lambda _: GpuContext(Device(device), scale, SUITE.work(), console),
        options={"device": device} if rehearsed else {},
        seeds=[1],
        console=console,
    )
