"""The exported graphs: their names, inputs and outputs, and the files that hold them."""

from dataclasses import dataclass

from newshelf.config import Precision, RuntimeKind
from newshelf.nn.spec import HEADS, EncoderSpec

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


_SUFFIXES: dict[RuntimeKind, tuple[str, ...]] = {
    "torchscript": (".pt",),
    "onnxruntime": (".onnx",),
    "openvino": (".xml", ".bin"),
}
"""What a graph's files end in, the one that is opened first."""


def graph_file(name: str, kind: RuntimeKind, precision: Precision = "fp32") -> str:
    """The file by which graph ``name`` is opened for a runtime and a precision."""
    return graph_files(name, kind, precision)[0]


def graph_files(name: str, kind: RuntimeKind, precision: Precision = "fp32") -> tuple[str, ...]:
    """All files of graph ``name`` for a runtime and a precision; OpenVINO's weights are apart.

    OpenVINO and TensorRT compute in bfloat16 from the float32 file.
    """
    stem = name if precision in ("fp32", "bf16") else f"{name}.{precision}"
    return tuple(f"{stem}{suffix}" for suffix in _SUFFIXES[kind])
