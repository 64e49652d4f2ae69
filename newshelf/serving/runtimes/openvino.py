"""OpenVINO's files, on the CPU."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from newshelf.config import Precision
from newshelf.errors import WeightsError
from newshelf.serving.runtimes.base import IMAGE_FEATURES, Array, Graph


class OpenVinoRuntime:
    """A graph, compiled for this CPU.

    The weights are mapped from their file, where all processes share them; what OpenVINO lays
    out again for its kernels is each process's own.

    A quantised image tower is compiled apart from the rest. Together with what follows it,
    OpenVINO 2026.4 gets another result (cosine 0.971 instead of 0.998, and as little in
    float32 on the quantised graph); apart, the same as ONNX Runtime.

    ``bf16`` and ``int8`` compute in bfloat16 what is not quantised, where the CPU can, and in
    float32 where it cannot. Raises ``WeightsError`` if the file cannot be loaded.
    """

    def __init__(self, path: Path, graph: Graph, threads: int, precision: Precision) -> None:
        self._outputs = graph.outputs
        core = shared_core()
        options = _options(threads, precision)
        try:
            model = core.read_model(str(path))
            parts = _apart(model) if precision == "int8" else [model]
            self._parts = [_Part(core.compile_model(part, "CPU", options)) for part in parts]
        except RuntimeError as error:
            raise WeightsError(f"{path} cannot be loaded: {error}") from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """See ``Runtime.run``."""
        values = dict(inputs)
        for part in self._parts:
            values |= part.run(values)
        return {name: np.asarray(values[name]) for name in self._outputs}


@cache
def shared_core() -> Any:
    """One for the whole process, which is never given up.

    The CPU plugin of each core gives its thread a signal stack of its own, and puts back the one
    before when the core goes. Of two cores, the second to go would put back the freed stack of
    the first, and the next signal, Ctrl-C too, would kill the process without a word.
    """
    return openvino.Core()


class _Part:
    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        # An exporter drops the inputs that an absent tower would have read.
        self._inputs = tuple(port.any_name for port in compiled.inputs)
        self._outputs = tuple(port.any_name for port in compiled.outputs)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """Its outputs by name, the caller's own."""
        given = {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}
        request = self._request()
        try:
            request.infer(given, share_inputs=True)
            # A request's outputs are overwritten by its next run.
            return {name: np.array(request.get_tensor(name).data) for name in self._outputs}
        finally:
            self._idle.put(request)

    def _request(self) -> Any:
        """One that no other thread is using: a request holds the state of one run."""
        try:
            return self._idle.get_nowait()
        except Empty:
            return self.compiled.create_infer_request()


def _apart(model: Any) -> list[Any]:
    """The image tower and the rest; the whole model where nothing is called its features."""
    cuts = [
        output
        for node in model.get_ordered_ops()
        for output in node.outputs()
        if IMAGE_FEATURES in output.get_names()
    ]
    if not cuts:
        return [model]
    (cut,) = cuts
    entry = openvino.opset13.parameter(cut.get_partial_shape(), cut.get_element_type())
    readers = list(cut.get_target_inputs())
    for reader in readers:
        reader.replace_source_output(entry.output(0))
    pictures = [node for node in model.get_parameters() if "image" in node.output(0).get_names()]
    others = [node for node in model.get_parameters() if node not in pictures]
    tower = openvino.Model([openvino.opset13.result(cut)], pictures, "tower")
    tower.output(0).set_names({IMAGE_FEATURES})
    entry.output(0).set_names({IMAGE_FEATURES})
    return [tower, openvino.Model(model.get_results(), [*others, entry], "rest")]


def _options(threads: int, precision: Precision) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # Each worker would pin itself to the same first cores.
        "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
    }
