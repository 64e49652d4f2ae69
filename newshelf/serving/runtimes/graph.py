"""The exported graphs: their names, inputs and outputs, and the files that hold them."""

from dataclasses import dataclass

from newshelf.nn.spec import HEADS, EncoderSpec
from newshelf.serving.runtimes.base import Kind, Precision

__all__ = [
    "IMAGE_FEATURES",
    "Graph",
    "encoder_graph",
    "graph_file",
    "projector_graph",
    "scorer_graph",
]

IMAGE_FEATURES = "image_features"
"""What a quantised encoder calls the output of its image tower."""


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


def graph_file(name: str, kind: Kind, precision: Precision = "fp32") -> str:
    """The file that holds graph ``name`` for a runtime and a precision.

    OpenVINO and TensorRT compute in bfloat16 from the float32 file, so there is none of
    its own.
    """
    if kind == "torchscript":
        return f"{name}.pt"
    return f"{name}.onnx" if precision in ("fp32", "bf16") else f"{name}.{precision}.onnx"
