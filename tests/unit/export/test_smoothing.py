"""Wide channels are moved from activations into weights, and the model computes the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.int8 import quantise_texts
from export.int8_graph import linear_layers, smooth

WIDTH = 8
RNG = np.random.default_rng(3)
WIDE = 5
BATCHES = [
    {"x": RNG.standard_normal((1, tokens, WIDTH)).astype(np.float32)} for tokens in (3, 7, 12, 5)
]


@pytest.fixture
def model():
    """Two layers that read one activation with a wide channel, attention between them, a tied one.

    ``tied`` is read by two layers with different inputs.
    """
    scale = np.ones(WIDTH, dtype=np.float32)
    scale[WIDE] = 200

    def weights(name, divisor=1.0):
        values = RNG.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
        values[WIDE] /= divisor
        return numpy_helper.from_array(values.astype(np.float32), name)

    # The wide channel counts as much as the others do.
    query, key, tied = weights("query", 200), weights("key", 200), weights("tied")
    tensors = [numpy_helper.from_array(scale, "scale"), query, key, tied]
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["wide"], name="mul"),
        helper.make_node("MatMul", ["wide", "query"], ["q"], name="to_query"),
        helper.make_node("MatMul", ["wide", "key"], ["k"], name="to_key"),
        helper.make_node("Transpose", ["k"], ["kt"], name="transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"], name="attention"),
        helper.make_node("MatMul", ["x", "tied"], ["a"], name="tied_a"),
        helper.make_node("MatMul", ["a", "tied"], ["b"], name="tied_b"),
        helper.make_node("MatMul", ["scores", "b"], ["y"], name="mix"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "layers",
        [value("x", TensorProto.FLOAT, ["N", "T", WIDTH])],
        [value("y", TensorProto.FLOAT, ["N", "T", WIDTH])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answers(model, *names):
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    session = onnxruntime.InferenceSession(exposed.SerializeToString())
    return [session.run(list(names), batch) for batch in BATCHES]


def test_linear_are_products_with_weights_and_not_of_activations(model):
    names = [node.name for node in linear_layers(model)]
    assert names == ["to_query", "to_key", "tied_a", "tied_b"]


def test_a_smoothed_model_computes_the_same(model):
    before = model.SerializeToString()
    smoothed = smooth(model, BATCHES)
    assert model.SerializeToString() == before
    onnx.checker.check_model(smoothed)
    for (wanted,), (found,) in zip(answers(model, "y"), answers(smoothed, "y"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_channels_are_evened_out(model):
    def unevenness(model, name):
        widest = np.max([np.abs(one).max(axis=(0, 1)) for (one,) in answers(model, name)], axis=0)
        return widest.max() / np.median(widest)

    smoothed = smooth(model, BATCHES)
    assert unevenness(model, "wide") > 50
    assert unevenness(smoothed, "wide_smoothed") < 6


def test_layers_with_one_input_share_what_divides_it_and_tied_weights_are_left_alone(model):
    smoothed = smooth(model, BATCHES)
    inputs = {node.name: node.input[0] for node in linear_layers(smoothed)}
    assert inputs == {
        "to_query": "wide_smoothed",
        "to_key": "wide_smoothed",
        "tied_a": "x",
        "tied_b": "a",
    }
    tied = {
        when: next(one for one in some.graph.initializer if one.name == "tied")
        for when, some in (("before", model), ("after", smoothed))
    }
    assert tied["after"].raw_data == tied["before"].raw_data


def test_int8_needs_it(model, tmp_path, monkeypatch):
    """Where one range must do for a wide channel and narrow ones, the narrow ones are lost."""

    def error():
        made = quantise_texts(model, BATCHES, 8, tmp_path)
        types = [node.op_type for node in made.graph.node]
        # Two inputs for query and key, x and a; nothing of the attention.
        assert types.count("QuantizeLinear") == 3
        pairs = zip(answers(model, "q"), answers(made, "q"), strict=True)
        narrow = [np.abs(found - wanted).mean() for (wanted,), (found,) in pairs]
        return np.mean(narrow)

    smoothed = error()
    monkeypatch.setattr("export.int8.smooth", lambda model, _texts: model)
    assert smoothed < error() / 2
    assert list(tmp_path.iterdir()) == []
