"""A small graph in every format; torch's exporter is not involved."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from export.graphs import write_openvino
from newshelf.serving.runtimes.base import Device, Graph, open_runtime

GRAPH = Graph("tiny", ("left", "right", "mask", "index", "unused"), ("sum", "count"))


class Tiny(torch.nn.Module):
    def forward(self, left, right, mask, index, unused):
        return torch.where(mask, left + right, left), right.sum(dim=1) + index


@pytest.fixture(scope="session")
def graph():
    return GRAPH


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """``sum = left + right · mask``, ``count = Σ right + index``; ONNX lacks ``unused``."""
    folder = tmp_path_factory.mktemp("graphs")
    torch.jit.script(Tiny()).save(str(folder / "tiny.pt"))
    nodes = [
        helper.make_node("Add", ["left", "right"], ["both"]),
        helper.make_node("Where", ["mask", "both", "left"], ["sum"]),
        helper.make_node("ReduceSum", ["right", "axes"], ["total"], keepdims=0),
        helper.make_node("Cast", ["index"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["total", "number"], ["count"]),
    ]
    value, floats = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [
        value("index", TensorProto.INT64, ["batch"]),
        value("left", floats, ["batch", 3]),
        value("right", floats, ["batch", 3]),
        value("mask", TensorProto.BOOL, ["batch", 3]),
    ]
    outputs = [value("count", floats, ["batch"]), value("sum", floats, ["batch", 3])]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "tiny.onnx")
    write_openvino(folder / "tiny.onnx", folder / "tiny.xml")
    return folder


@pytest.fixture
def opened(folder):
    """Open the small graph: ``opened(kind, **options)``."""

    def get(kind, **options):
        return open_runtime(kind, folder, GRAPH, options.pop("device", Device()), 1, **options)

    return get


@pytest.fixture(scope="session")
def inputs():
    def make(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        left, right = (rng.random((batch, 3), dtype=np.float32) for _ in range(2))
        return {
            "left": left,
            "right": right,
            "mask": rng.random((batch, 3)) > 0.5,
            "index": np.arange(batch),
            "unused": np.zeros(1, dtype=np.float32),
        }

    return make


@pytest.fixture(scope="session")
def expected_sum():
    return lambda given: given["left"] + given["right"] * given["mask"]
