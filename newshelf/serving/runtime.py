"""One graph, run by TorchScript or by ONNX Runtime; the caller cannot tell which."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import onnxruntime
import torch
from torch import Tensor

from newshelf.errors import SetupError, WeightsError
from newshelf.nn.spec import HEADS, EncoderSpec

__all__ = [
    "Graph",
    "OnnxRuntime",
    "Runtime",
    "TorchScriptRuntime",
    "encoder_graph",
    "open_runtime",
    "projector_graph",
    "scorer_graph",
]


class Runtime(Protocol):
    """Runs one graph. Safe to call from several threads."""

    @property
    def device(self) -> torch.device:
        """Where inputs are expected and outputs are returned."""
        ...

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph once.

        Args:
            inputs: by name, on ``device``. Those that the graph does not use are ignored.

        Returns:
            Outputs by name, on ``device``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Graph:
    """The name of an exported graph, and of its inputs and outputs in order."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def encoder_graph(spec: EncoderSpec) -> Graph:
    """The encoder: ``embedding``, then ``<head>_logits`` of each head with classes."""
    inputs = ("image", "image_row", "input_ids", "attention_mask", "text_row", "attributes")
    heads = [f"{head}_logits" for head in HEADS if spec.labels.get(head)]
    return Graph("encoder", inputs, ("embedding", *heads))


def projector_graph() -> Graph:
    """``embedding (N, 512)`` → ``vector (N, P)``."""
    return Graph("projector", ("embedding",), ("vector",))


def scorer_graph() -> Graph:
    """``history``, ``history_mask`` and ``candidates`` → ``scores`` and ``attention``."""
    return Graph("scorer", ("history", "history_mask", "candidates"), ("scores", "attention"))


def open_runtime(
    kind: Literal["onnxruntime", "torchscript"],
    directory: Path,
    graph: Graph,
    device: torch.device,
    threads: int,
) -> Runtime:
    """Load ``directory/<graph>.onnx`` or ``.pt`` onto ``device``.

    ``threads`` is for ONNX Runtime's own pool; TorchScript uses torch's, set by
    ``torch.set_num_threads``.

    Raises:
        WeightsError: the file is missing or cannot be loaded.
        SetupError: the device's provider is not to be had.
    """
    if kind == "torchscript":
        return TorchScriptRuntime(directory / f"{graph.name}.pt", graph, device)
    return OnnxRuntime(directory / f"{graph.name}.onnx", graph, device, threads)


class TorchScriptRuntime:
    """A TorchScript file; inputs are given by position, in the graph's order."""

    def __init__(self, path: Path, graph: Graph, device: torch.device) -> None:
        if not path.exists():
            raise WeightsError(f"{path} is missing: export with this runtime first")
        if device.type == "cuda":
            # Batches differ in size; without this, each new shape compiles new kernels.
            torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
        try:
            self._module = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise WeightsError(f"{path} cannot be loaded: {error}") from error
        self._graph = graph
        self._device = device

    @property
    def device(self) -> torch.device:
        """Where the module lives."""
        return self._device

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See ``Runtime.run``."""
        with torch.inference_mode():
            outputs = self._module(*(inputs[name] for name in self._graph.inputs))
        if isinstance(outputs, Tensor):
            outputs = (outputs,)
        return dict(zip(self._graph.outputs, outputs, strict=True))


class OnnxRuntime:
    """An ONNX file.

    On the CPU, tensors are shared with numpy and not copied. On a GPU, inputs and
    outputs stay there through IO binding.

    Args:
        path: the ``.onnx`` file.
        graph: its inputs and outputs.
        device: CPU, or a CUDA device.
        threads: intra-op threads.
        bind: use IO binding; by default on a GPU only.
    """

    def __init__(
        self,
        path: Path,
        graph: Graph,
        device: torch.device,
        threads: int,
        *,
        bind: bool | None = None,
    ) -> None:
        if not path.exists():
            raise WeightsError(f"{path} is missing: export with this runtime first")
        self._device = device
        self._outputs = graph.outputs
        self._session = _session(path, device, threads)
        # An exporter drops the inputs that an absent tower would have read.
        self._inputs = tuple(item.name for item in self._session.get_inputs())
        self._bind = device.type == "cuda" if bind is None else bind

    @property
    def device(self) -> torch.device:
        """Where the session runs."""
        return self._device

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See ``Runtime.run``."""
        fed = {name: inputs[name].detach().contiguous() for name in self._inputs}
        return self._run_bound(fed) if self._bind else self._run_shared(fed)

    def _run_shared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        outputs = self._session.run(list(self._outputs), arrays)
        return {
            name: torch.from_numpy(array)
            for name, array in zip(self._outputs, outputs, strict=True)
        }

    def _run_bound(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kind, index = self._device.type, self._device.index or 0
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            array_type = torch.empty(0, dtype=tensor.dtype).numpy().dtype
            binding.bind_input(name, kind, index, array_type, tensor.shape, tensor.data_ptr())
        for name in self._outputs:
            binding.bind_output(name, kind, index)
        if kind == "cuda":
            # The session has a stream of its own, which must see the inputs' copies done.
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        values = binding.get_outputs()
        return {
            name: torch.utils.dlpack.from_dlpack(value)
            for name, value in zip(self._outputs, values, strict=True)
        }


def _session(path: Path, device: torch.device, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning pool takes the cores that the server and the other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    provider: str | tuple[str, dict[str, int]] = "CPUExecutionProvider"
    if device.type == "cuda":
        provider = ("CUDAExecutionProvider", {"device_id": device.index or 0})
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        # ONNX Runtime raises bare classes of its own, one per status code.
        raise WeightsError(f"{path} cannot be loaded: {error}") from error
    wanted = provider if isinstance(provider, str) else provider[0]
    if session.get_providers()[0] != wanted:
        raise SetupError(
            f"ONNX Runtime took {session.get_providers()[0]} instead of {wanted}: its build "
            "and torch's must be made for the same major version of the GPU's libraries"
        )
    return session
