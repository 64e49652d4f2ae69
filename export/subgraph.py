"""A part of an ONNX graph as a model of its own."""

from collections.abc import Iterable, Sequence

import onnx
from onnx.utils import Extractor

__all__ = ["subgraph"]


def subgraph(
    model: onnx.ModelProto, inputs: Iterable[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """What computes ``outputs``, back to ``inputs``.

    Args:
        model: its nodes in an order in which they can run; not changed.
        inputs: tensors that are given; those that are not read are left out.
        outputs: tensors that are sought.
    """
    extractor = Extractor(model)
    names = list(inputs)
    for name in (*names, *outputs):
        # A quantised graph does not tell the shapes of what is inside it.
        extractor.value_infos.setdefault(
            name, onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    part = extractor.extract_model(names, list(outputs))
    graph = part.graph
    read = {name for node in graph.node for name in node.input}
    given = [value for value in graph.input if value.name in read]
    # Inner shapes go: the extractor counts inputs and outputs among them, and a quantiser
    # infers them anew.
    del graph.input[:], graph.value_info[:]
    graph.input.extend(given)
    return part
