"""A part of an ONNX graph as a model of its own."""

from collections.abc import Collection, Sequence

import onnx

__all__ = ["subgraph"]


def subgraph(
    model: onnx.ModelProto, inputs: Collection[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """What computes ``outputs``, back to ``inputs``.

    ``onnx.utils.extract_model`` asks for the shapes of both, which a quantised graph lacks.

    Args:
        model: its nodes in an order in which they can run; not changed.
        inputs: tensors that are given; those that are not read are left out.
        outputs: tensors that are sought.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    given: set[str] = set()
    used: set[str] = set()
    sought = list(outputs)
    while sought:
        name = sought.pop()
        if name in inputs:
            given.add(name)
        elif (node := producers.get(name)) is not None and node.name not in used:
            used.add(node.name)
            sought += node.input
    nodes = [node for node in graph.node if node.name in used]
    read = {name for node in nodes for name in node.input}
    values: dict[str, onnx.ValueInfoProto] = {
        value.name: value for value in (*graph.value_info, *graph.input, *graph.output)
    }

    def known(name: str) -> onnx.ValueInfoProto:
        if name in values:
            return values[name]
        made: onnx.ValueInfoProto = onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, None
        )
        return made

    part = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            graph.name or "part",
            [known(name) for name in sorted(given)],
            [known(name) for name in outputs],
            [tensor for tensor in graph.initializer if tensor.name in read],
        ),
        opset_imports=model.opset_import,
    )
    part.ir_version = model.ir_version
    return part
