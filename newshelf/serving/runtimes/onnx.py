"""ONNX files in ONNX Runtime: on the CPU, or on a GPU by CUDA."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from newshelf.config import Precision
from newshelf.errors import SetupError, WeightsError
from newshelf.serving.runtimes.base import Array, Device, Graph

if TYPE_CHECKING:
    import torch


_Options = tuple[str, dict[str, Any]]
_REQUANTISING = "WeightBiasQuantization"
"""ONNX Runtime's own step that puts float32 weights between quantised tensors in int8, with
one scale for all channels: what the export left in float32 stays so."""


class OnnxRuntime:
    """An ONNX file.

    On the CPU, arrays are read where they are. On a GPU, tensors that are there already are
    bound to the session and not copied; arrays of the host are copied by it.

    ``threads`` are those of one operator; ``precision`` is a GPU's; ``bind`` uses
    IO binding, by default on a GPU only. Raises ``WeightsError`` if the file cannot be loaded, and
    ``SetupError`` without the provider.
    """

    def __init__(
        self,
        path: Path,
        graph: Graph,
        device: Device,
        threads: int,
        *,
        precision: Precision = "fp32",
        bind: bool | None = None,
    ) -> None:
        self._device = device
        self._outputs = graph.outputs
        self._session = _session(path, _provider(device, precision), threads)
        # An exporter drops the inputs that an absent tower would have read.
        self._inputs = tuple(item.name for item in self._session.get_inputs())
        self._bind = device.kind == "cuda" if bind is None else bind

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """See ``Runtime.run``."""
        given = {name: inputs[name] for name in self._inputs}
        if self._bind:
            outputs = self._run_bound(given)
        else:
            arrays = {name: np.ascontiguousarray(value) for name, value in given.items()}
            outputs = self._session.run(list(self._outputs), arrays)
        return dict(zip(self._outputs, outputs, strict=True))

    def _run_bound(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        binding = self._session.io_binding()
        # The session reads what is bound during the run: it must live until then.
        kept = [self._bind_input(binding, name, value) for name, value in inputs.items()]
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        if tensors := [value for value in kept if not isinstance(value, np.ndarray)]:
            _wait_for(tensors[0])
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        # numpy() shares the binding's memory, which goes with it.
        return [np.array(value.numpy()) for value in binding.get_outputs()]

    def _bind_input(self, binding: Any, name: str, value: Array) -> Array:
        """Bind ``value`` and return what the binding points to."""
        if isinstance(value, np.ndarray) or value.device.type == "cpu":
            array = np.ascontiguousarray(value)
            binding.bind_cpu_input(name, array)
            return array
        tensor = value.detach().contiguous()
        index = tensor.device.index or 0
        if index != self._device.index:
            raise SetupError(f"{name} is on {tensor.device}, and the session on {self._device}")
        kind = str(tensor.dtype).removeprefix("torch.")
        binding.bind_input(
            name,
            tensor.device.type,
            index,
            np.dtype(kind),
            tuple(tensor.shape),
            tensor.data_ptr(),
        )
        return tensor


def _wait_for(tensor: "torch.Tensor") -> None:
    """The session has a stream of its own, which must see torch's work on its inputs done."""
    import torch  # noqa: PLC0415

    torch.cuda.current_stream(tensor.device).synchronize()


def _provider(device: Device, precision: Precision) -> _Options:
    if device.kind == "cpu":
        return "CPUExecutionProvider", {}
    # The provider links to CUDA's libraries, which torch brings and loads.
    import torch  # noqa: F401, PLC0415

    return "CUDAExecutionProvider", {
        "device_id": device.index,
        # Powers of two, the default, may reserve twice the memory that is used.
        "arena_extend_strategy": "kSameAsRequested",
        # Searching again for each batch size would stall requests.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Products of 10 bits are not what float32 promises.
        "use_tf32": int(precision != "fp32"),
    }


def _session(path: Path, provider: _Options, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning pool takes the cores that the server and the other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[provider], disabled_optimizers=[_REQUANTISING]
        )
    except Exception as error:
        # ONNX Runtime raises bare classes of its own, one per status code.
        raise WeightsError(f"{path} cannot be loaded: {error}") from error
    wanted, active = provider[0], session.get_providers()[0]
    if active != wanted:
        raise SetupError(
            f"ONNX Runtime took {active} instead of {wanted}: its build and torch's must be "
            "made for the same major version of the GPU's libraries, which must be installed"
        )
    return session
