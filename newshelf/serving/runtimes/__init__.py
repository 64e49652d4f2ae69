"""Runs an exported graph by TorchScript, ONNX Runtime or OpenVINO; the caller cannot tell which.

``open_runtime`` imports the library of the runtime that it opens and no other: a worker on
the CPU, with ONNX Runtime or OpenVINO, loads no torch.
"""

from newshelf.serving.runtimes.base import Array, Kind, Precision, Provider, Runtime, ScorerGraphs
from newshelf.serving.runtimes.device import Device, choose_device
from newshelf.serving.runtimes.graph import (
    IMAGE_FEATURES,
    Graph,
    encoder_graph,
    graph_file,
    graph_files,
    projector_graph,
    scorer_graph,
)
from newshelf.serving.runtimes.open import open_runtime

__all__ = [
    "IMAGE_FEATURES",
    "Array",
    "Device",
    "Graph",
    "Kind",
    "Precision",
    "Provider",
    "Runtime",
    "ScorerGraphs",
    "choose_device",
    "encoder_graph",
    "graph_file",
    "graph_files",
    "open_runtime",
    "projector_graph",
    "scorer_graph",
]
