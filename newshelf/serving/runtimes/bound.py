"""A session of ONNX Runtime on a GPU, whose inputs and outputs are torch's tensors.

The session computes on a stream of torch, as do the copies: the GPU keeps the order, and the host
waits once per run, for the outputs.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from newshelf.nn.pinned import to_device, to_host
from newshelf.serving.runtimes.base import Array


class BoundSession:
    """Runs a ``session`` that computes on ``stream``; without one, on the CPU."""

    def __init__(
        self, session: Any, device: torch.device, stream: torch.cuda.Stream | None
    ) -> None:
        self._session, self._device, self._stream = session, device, stream
        self._inputs = {item.name: item.shape for item in session.get_inputs()}
        self._outputs = {item.name: item.shape for item in session.get_outputs()}
        self._options = onnxruntime.RunOptions()
        # Whoever reads the outputs waits for the stream.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Return the named outputs, which are float32, as arrays of the caller's own."""
        before = self._stream and torch.cuda.current_stream(self._device)
        with self._lock, torch.cuda.stream(self._stream):
            if self._stream is not None and before is not None:
                # Tensors among the inputs are made there.
                self._stream.wait_stream(before)
            binding = self._session.io_binding()
            sizes: dict[object, int] = {}
            # The session reads what is bound during the run: it must live until then.
            given = [to_device(inputs[name], self._device) for name in self._inputs]
            for (name, shape), tensor in zip(self._inputs.items(), given, strict=True):
                sizes |= zip(shape, tensor.shape, strict=True)
                binding.bind_input(name, *_place(tensor))
            found = []
            for name in outputs:
                shape = [sizes.get(size, size) for size in self._outputs[name]]
                found.append(torch.empty(shape, device=self._device))
                binding.bind_output(name, *_place(found[-1]))
            self._session.run_with_iobinding(binding, self._options)
            return to_host(found, self._device)


def _place(tensor: Tensor) -> tuple[str, int, type[np.generic], tuple[int, ...], int]:
    """Return what a binding takes of a tensor: device, type, shape and address."""
    kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
    device = tensor.device
    return device.type, device.index or 0, kind.type, tuple(tensor.shape), tensor.data_ptr()
