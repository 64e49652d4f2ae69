"""What the export left in float32 between quantised tensors stays so in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from newshelf.serving.runtimes.base import Device, Graph
from newshelf.serving.runtimes.onnx import OnnxRuntime

GRAPH = Graph("between", ("image",), ("answer",))
STEP = 0.05
IMAGE = np.random.default_rng(1).uniform(-5, 5, (2, 4, 6, 6)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).standard_normal((4, 1, 3, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    """A depthwise convolution between ``QuantizeLinear`` … ``DequantizeLinear`` on both sides."""
    # With one scale for all, the last channel's weights would all round to 0.
    weights = WEIGHTS * np.float32([1, 0.1, 0.01, 0.001])[:, None, None, None]
    tensors = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.zeros(4, dtype=np.float32), "bias"),
        numpy_helper.from_array(np.float32(STEP), "step"),
        numpy_helper.from_array(np.uint8(128), "zero"),
        # Fine enough to tell the last channel's answers apart.
        numpy_helper.from_array(np.float32(STEP / 1000), "fine"),
        numpy_helper.from_array(np.uint16(32768), "middle"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["dq"]),
        helper.make_node("Conv", ["dq", "weights", "bias"], ["conv"], group=4, pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["conv", "fine", "middle"], ["q2"]),
        helper.make_node("DequantizeLinear", ["q2", "fine", "middle"], ["answer"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "between",
        [value("image", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [value("answer", TensorProto.FLOAT, ["N", 4, 6, 6])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "between.onnx")
    return tmp_path / "between.onnx"


def test_weights_in_float32_are_not_put_in_int8(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(str(path), options)
    (wanted,) = plain.run(None, {"image": IMAGE})
    assert np.abs(wanted[:, 3]).max() > 1e-3
    answer = OnnxRuntime(path, GRAPH, Device(), 1).run({"image": IMAGE})["answer"]
    # Sums in another order may round to the next step.
    assert np.abs(answer - wanted).max() < 2.5 * STEP / 1000
