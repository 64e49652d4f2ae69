"""Where a worker computes, said without torch."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Device", "choose_device"]


@dataclass(frozen=True, slots=True)
class Device:
    """The CPU, or one GPU. As text it is what ``torch.device`` reads."""

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def choose_device(gpu_id: int | str | None) -> Device:
    """The GPU that the model server assigned; the CPU when it assigned none."""
    return Device() if gpu_id is None else Device("cuda", int(gpu_id))
