"""What a few wide channels make coarse is moved from activations into weights.

In a transformer some channels are a hundred times wider than the others, and one range for all
leaves the others a few levels. Dividing each channel by a factor, and multiplying the rows of
the weights that read it by the same, changes nothing in float32, and evens the channels out.

Xiao et al., "SmoothQuant" (2023), equation 4: ``s_j = max|X_j|^α / max|W_j|^(1 - α)``.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from export.subgraph import subgraph

__all__ = ["linear_layers", "smooth"]

_ALPHA = 0.75
"""How much is moved. MiniLM: 0.5 moves too little (cosine 0.990), 0.75 to 0.95 reach 0.998."""
_LEAST = 1e-5
"""Of a channel or factor: one that is never used stays as it is, nearly."""
_MATRIX = 2

Floats = NDArray[np.float32]


def smooth(model: onnx.ModelProto, batches: Sequence[dict[str, NDArray[Any]]]) -> onnx.ModelProto:
    """A model that computes the same, with even channels before its linear layers.

    Args:
        model: float32; not changed.
        batches: its inputs, to find the widths with.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    uses = Counter(name for node in made.graph.node for name in node.input)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in linear_layers(made):
        # Weights that another layer reads, too, cannot be scaled for both.
        if uses[node.input[1]] == 1:
            readers.setdefault(node.input[0], []).append(node)
    widths = _widths(model, list(readers), batches)
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    for name, nodes in readers.items():
        weights = [tensors[node.input[1]] for node in nodes]
        factors = _factors(widths[name], [numpy_helper.to_array(one) for one in weights])
        for weight in weights:
            scaled = numpy_helper.to_array(weight) * factors[:, None]
            weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
        _divide(made.graph, name, nodes, factors)
    return made


def linear_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Products with weights ``(channels in, channels out)``; not those of two activations."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == _MATRIX}
    return [
        node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights
    ]


def _widths(
    model: onnx.ModelProto, names: Sequence[str], batches: Sequence[dict[str, NDArray[Any]]]
) -> dict[str, Floats]:
    """The largest absolute value of each channel, the last axis; ``(channels,)``."""
    exposed = subgraph(model, [value.name for value in model.graph.input], names)
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: dict[str, Floats] = {}
    for batch in batches:
        for name, values in zip(names, session.run(None, batch), strict=True):
            widest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            found[name] = np.maximum(found.get(name, 0), widest)
    return found


def _factors(widths: Floats, weights: Sequence[Floats]) -> Floats:
    rows = np.max([np.abs(one).max(axis=1) for one in weights], axis=0)
    moved = np.maximum(widths, _LEAST) ** _ALPHA / np.maximum(rows, _LEAST) ** (1 - _ALPHA)
    factors: Floats = np.maximum(moved, _LEAST).astype(np.float32)
    return factors


def _divide(
    graph: onnx.GraphProto, name: str, nodes: Sequence[onnx.NodeProto], factors: Floats
) -> None:
    """Have ``nodes`` read ``name / factors``."""
    smoothed, inverse = f"{name}_smoothed", f"{name}_smoothing"
    graph.initializer.append(numpy_helper.from_array(1 / factors, inverse))
    names = {node.name for node in nodes}
    first = next(at for at, node in enumerate(graph.node) if node.name in names)
    graph.node.insert(
        first, onnx.helper.make_node("Mul", [name, inverse], [smoothed], name=smoothed)
    )
    for node in nodes:
        node.input[0] = smoothed
