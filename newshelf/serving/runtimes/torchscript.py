"""TorchScript files, on the CPU or a GPU."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from newshelf.errors import WeightsError
from newshelf.nn.pinned import to_device, to_host
from newshelf.serving.runtimes.base import Array, Device, Graph, limit_memory


class TorchScriptRuntime:
    """A TorchScript file; inputs are given by position. ``threads`` are the whole process's."""

    def __init__(self, path: Path, graph: Graph, device: Device, threads: int) -> None:
        self._device = torch.device(str(device))
        self._graph = graph
        torch.set_num_threads(threads)
        if device.kind == "cuda":
            limit_memory(device, device.memory)
            # Batches differ in size; without this, each new shape compiles new kernels.
            torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
        self._module = _load(path, self._device)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """See ``Runtime.run``."""
        given = (to_device(inputs[name], self._device) for name in self._graph.inputs)
        with torch.inference_mode():
            outputs = self._module(*given)
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        return dict(zip(self._graph.outputs, to_host(outputs, self._device), strict=True))


def _load(path: Path, device: torch.device) -> Any:
    try:
        with warnings.catch_warnings():
            # Deprecated upstream, but one of the formats that are served.
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise WeightsError(f"{path} cannot be loaded: {error}") from error
