"""The image tower's part of an exported encoder."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

__all__ = ["TowerNodes", "tower_nodes"]

_RANK_OF_FEATURES = 2


@dataclass(frozen=True)
class TowerNodes:
    """What an ONNX graph computes from the pictures alone."""

    names: Sequence[str]
    """The nodes, in the graph's order."""
    features: str
    """The tower's output, ``(N, features)``."""


def tower_nodes(graph: onnx.GraphProto, features: int) -> TowerNodes | None:
    """Find the image tower in the graph of an encoder.

    Args:
        graph: has an input ``image``, unless the encoder reads no pictures.
        features: the tower's width.

    Returns:
        None without a tower.
    """
    others = {value.name for value in graph.input if value.name != "image"}
    of_pictures = {"image"}
    names, outputs = [], []
    for node in graph.node:
        if others.intersection(node.input):
            others.update(node.output)
        elif of_pictures.intersection(node.input):
            of_pictures.update(node.output)
            names.append(node.name)
            outputs += node.output
    shaped = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    wide = [
        name
        for name in outputs
        if len(dims := shaped.get(name, ())) == _RANK_OF_FEATURES and dims[1].dim_value == features
    ]
    return TowerNodes(names, wide[-1]) if wide else None
