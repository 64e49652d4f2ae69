"""ONNX files in ONNX Runtime: on the CPU, or on a GPU by CUDA."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from newshelf.config import Precision
from newshelf.errors import SetupError, WeightsError
from newshelf.serving.runtimes.base import Array, Device, Graph, limit_memory

if TYPE_CHECKING:
    from newshelf.serving.runtimes.bound import BoundSession


_REQUANTISING = "WeightBiasQuantization"
"""ONNX Runtime's own step that puts float32 weights between quantised tensors in int8, with
one scale for all channels: what the export left in float32 stays so."""


class OnnxRuntime:
    """An ONNX file.

    On the CPU, arrays are read where they are; a GPU's are ``newshelf.serving.runtimes.bound``'s.

    ``threads`` are those of one operator; ``precision`` is a GPU's. Raises ``WeightsError`` if the
    file cannot be loaded, and ``SetupError`` without the provider.
    """

    def __init__(
        self,
        path: Path,
        graph: Graph,
        device: Device,
        threads: int,
        *,
        precision: Precision = "fp32",
    ) -> None:
        self._outputs = graph.outputs
        self._bound: BoundSession | None = None
        if device.kind == "cuda":
            self._bound = _open_on_gpu(path, device, threads, precision)
            return
        self._session = _session(path, ("CPUExecutionProvider", {}), threads)
        # An exporter drops the inputs that an absent tower would have read.
        self._inputs = tuple(item.name for item in self._session.get_inputs())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """See ``Runtime.run``."""
        if self._bound is not None:
            outputs = self._bound.run(inputs, self._outputs)
        else:
            arrays = {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}
            outputs = self._session.run(list(self._outputs), arrays)
        return dict(zip(self._outputs, outputs, strict=True))


def _open_on_gpu(path: Path, device: Device, threads: int, precision: Precision) -> "BoundSession":
    # Before the session, whose provider links to CUDA's libraries: torch brings and loads them.
    import torch  # noqa: PLC0415

    from newshelf.serving.runtimes.bound import BoundSession  # noqa: PLC0415

    # Half of the worker's memory is for the pictures, which torch decodes.
    share = device.memory / 2
    limit_memory(device, share)
    stream = torch.cuda.Stream(device.index)
    total = torch.cuda.get_device_properties(device.index).total_memory
    options = {
        "device_id": device.index,
        "user_compute_stream": str(stream.cuda_stream),
        "gpu_mem_limit": int(share * total),
        # Powers of two, the default, may reserve twice the memory that is used.
        "arena_extend_strategy": "kSameAsRequested",
        # Searching again for each batch size would stall requests.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Products of 10 bits are not what float32 promises.
        "use_tf32": int(precision != "fp32"),
    }
    session = _session(path, ("CUDAExecutionProvider", options), threads)
    return BoundSession(session, torch.device(str(device)), stream)


def _session(path: Path, provider: tuple[str, dict[str, Any]], threads: int) -> Any:
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
