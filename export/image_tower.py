"""Where the image tower ends in the graph of an exported encoder."""

import onnx

__all__ = ["tower_output"]

_RANK_OF_FEATURES = 2


def tower_output(graph: onnx.GraphProto, features: int) -> str | None:
    """The tensor ``(N, features)`` that the graph computes from the pictures alone.

    Args:
        graph: has an input ``image``, unless the encoder reads no pictures.
        features: the tower's width.

    Returns:
        Its name; None without a tower.
    """
    others = {value.name for value in graph.input if value.name != "image"}
    of_pictures = {"image"}
    outputs: list[str] = []
    for node in graph.node:
        if others.intersection(node.input):
            others.update(node.output)
        elif of_pictures.intersection(node.input):
            of_pictures.update(node.output)
            outputs += node.output
    shaped = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    wide = [
        name
        for name in outputs
        if len(dims := shaped.get(name, ())) == _RANK_OF_FEATURES and dims[1].dim_value == features
    ]
    return wide[-1] if wide else None
