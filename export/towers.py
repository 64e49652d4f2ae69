"""The towers' parts of an exported encoder: what it computes from one modality alone."""

from collections.abc import Collection

import onnx

__all__ = ["IMAGE_INPUTS", "TEXT_INPUTS", "tower_output"]

IMAGE_INPUTS = ("image",)
TEXT_INPUTS = ("input_ids", "attention_mask")

_RANK_OF_FEATURES = 2


def tower_output(graph: onnx.GraphProto, inputs: Collection[str], features: int) -> str | None:
    """The tensor ``(N, features)`` that the graph computes from ``inputs`` alone.

    Args:
        graph: of an encoder.
        inputs: those of the tower; an exporter drops what an absent tower would have read.
        features: the tower's width.

    Returns:
        Its name; None without a tower.
    """
    others = {value.name for value in graph.input if value.name not in inputs}
    own = set(inputs)
    outputs: list[str] = []
    for node in graph.node:
        if others.intersection(node.input):
            others.update(node.output)
        elif own.intersection(node.input):
            own.update(node.output)
            outputs += node.output
    shaped = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    wide = [
        name
        for name in outputs
        if len(dims := shaped.get(name, ())) == _RANK_OF_FEATURES and dims[1].dim_value == features
    ]
    return wide[-1] if wide else None
