"""A part of a graph computes what it computed in the whole."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.int8_graph import subgraph


@pytest.fixture
def model():
    """``b = relu(a + w); c = b * v; d = b - c``, and ``e = -a`` beside it."""
    nodes = [
        helper.make_node("Add", ["a", "w"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["b"], name="relu"),
        helper.make_node("Mul", ["b", "v"], ["c"], name="mul"),
        helper.make_node("Sub", ["b", "c"], ["d"], name="sub"),
        helper.make_node("Neg", ["a"], ["e"], name="neg"),
    ]
    tensors = [
        numpy_helper.from_array(np.float32([1, -2]), "w"),
        numpy_helper.from_array(np.float32([3, 4]), "v"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "whole",
        [value("a", TensorProto.FLOAT, ["N", 2])],
        [value("d", TensorProto.FLOAT, ["N", 2]), value("e", TensorProto.FLOAT, ["N", 2])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def names(model):
    return {node.name for node in model.graph.node}, {
        tensor.name for tensor in model.graph.initializer
    }


def test_it_has_what_is_needed_and_nothing_else(model):
    part = subgraph(model, ["a"], ["c"])
    assert names(part) == ({"add", "relu", "mul"}, {"w", "v"})
    (given,) = part.graph.input
    # What was known of a tensor stays known.
    assert given.type.tensor_type.shape.dim[1].dim_value == 2


def test_it_ends_where_tensors_are_given(model):
    part = subgraph(model, ["a", "b", "e"], ["d"])
    assert names(part) == ({"mul", "sub"}, {"v"})
    assert [value.name for value in part.graph.input] == ["b"]
    session = onnxruntime.InferenceSession(part.SerializeToString())
    (answer,) = session.run(None, {"b": np.float32([[5, 6]])})
    assert answer.tolist() == [[-10, -18]]


def test_the_whole_is_not_changed(model):
    before = model.SerializeToString()
    subgraph(model, ["b"], ["c", "d"])
    assert model.SerializeToString() == before
