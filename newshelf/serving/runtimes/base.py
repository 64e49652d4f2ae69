"""The interface of runtimes (named arrays in, named arrays out), and the device of a worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


Array: TypeAlias = "NDArray[Any] | torch.Tensor"


class Runtime(Protocol):
    """Runs one graph. Safe to call from several threads."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """Run the graph once; return its outputs by name, on the host, the caller's own.

        Inputs are numpy arrays or tensors, by name; on a GPU, tensors there are read where they
        are. Those that the graph does not use are ignored. Outputs are float32 where they are
        floats.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScorerGraphs:
    """The Siamese scorer, in its two halves."""

    projector: Runtime
    scorer: Runtime
    max_history: int
    """The most recent items of a history that it was trained to read."""


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
