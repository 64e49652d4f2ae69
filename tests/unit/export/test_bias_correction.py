"""The mean of each channel is float32's again, however coarse the weights are."""

from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from export.int8_graph import correct_biases

SIZE = 12
RNG = np.random.default_rng(5)
IMAGES = RNG.standard_normal((20, 3, SIZE, SIZE)).astype(np.float32)
CHANNELS = (3, 8, 8, 8, 6)
WITHOUT_BIAS = 2
"""The number of the convolution that has none."""


def tower():
    """Four convolutions; the third's answer is added to the second's activation."""
    nodes, tensors = [], []
    read = "image"
    for at, (inside, out) in enumerate(pairwise(CHANNELS)):
        weights = RNG.standard_normal((out, inside, 3, 3)) * np.sqrt(2 / (9 * inside))
        tensors.append(numpy_helper.from_array(weights.astype(np.float32), f"w{at}"))
        inputs = [read, f"w{at}"]
        if at != WITHOUT_BIAS:
            bias = RNG.standard_normal(out).astype(np.float32)
            tensors.append(numpy_helper.from_array(bias, f"b{at}"))
            inputs.append(f"b{at}")
        nodes.append(helper.make_node("Conv", inputs, [f"c{at}"], name=f"conv{at}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"], name=f"relu{at}"))
        read = f"r{at}"
        if at == WITHOUT_BIAS:
            nodes.append(helper.make_node("Add", ["r1", "r2"], ["sum"], name="add"))
            read = "sum"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tower",
        [value("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [value("r3", TensorProto.FLOAT, ["N", CHANNELS[-1], SIZE, SIZE])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


class Reader(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"image": IMAGES}])

    def get_next(self):
        return next(self.batches, None)


@pytest.fixture
def models(tmp_path):
    """Float32, and int8 with the last convolution left out and coarse weights in the first two."""
    source = tower()
    onnx.save(source, tmp_path / "tower.onnx")
    quantize_static(
        tmp_path / "tower.onnx",
        tmp_path / "int8.onnx",
        Reader(),
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        nodes_to_exclude=["conv3"],
    )
    quantised = onnx.load(tmp_path / "int8.onnx")
    for tensor in quantised.graph.initializer:
        if tensor.name in ("w0_quantized", "w1_quantized"):
            # 16 levels, all rounded down: a shift that does not average out.
            coarse = numpy_helper.to_array(tensor) & ~np.int8(15)
            tensor.CopyFrom(numpy_helper.from_array(coarse, tensor.name))
    return source, quantised


def channel_means(model, images=IMAGES):
    """Of each convolution's answer, by the name of its node."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    exposed.graph.output.extend(
        helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        for node in convolutions
        if node.output[0] not in {value.name for value in model.graph.output}
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options)
    answers = session.run([node.output[0] for node in convolutions], {"image": images})
    return {
        node.name: answer.mean(axis=(0, 2, 3))
        for node, answer in zip(convolutions, answers, strict=True)
    }


def integer_biases(model):
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT32 and not tensor.name.endswith("zero_point")
    }


def test_means_are_those_of_float32(models):
    source, quantised = models
    wanted = channel_means(source)
    before = channel_means(quantised)
    correct_biases(quantised, source, IMAGES)
    after = channel_means(quantised)
    assert list(after) == ["conv0", "conv1", "conv2", "conv3"]
    for name in ("conv0", "conv1"):
        assert np.abs(before[name] - wanted[name]).max() > 0.02
        # A bias has steps of input scale × weight scale.
        assert np.abs(after[name] - wanted[name]).max() < 2e-4


def test_what_has_no_integer_bias_is_left_alone_and_profits_from_those_before(models):
    source, quantised = models
    (kept,) = (tensor for tensor in quantised.graph.initializer if tensor.name == "b3")
    bias = kept.SerializeToString()
    wanted, before = channel_means(source), channel_means(quantised)
    nodes = [node.SerializeToString() for node in quantised.graph.node]
    correct_biases(quantised, source, IMAGES)
    assert [node.SerializeToString() for node in quantised.graph.node] == nodes
    assert kept.SerializeToString() == bias
    after = channel_means(quantised)
    error = {
        when: np.abs(means["conv3"] - wanted["conv3"]).mean()
        for when, means in (("before", before), ("after", after))
    }
    assert error["after"] < error["before"] / 2


def test_a_model_that_is_right_keeps_its_biases(models):
    _source, quantised = models
    before = integer_biases(quantised)
    correct_biases(quantised, quantised, IMAGES)
    after = integer_biases(quantised)
    assert len(before) == 2
    for name, values in before.items():
        # One step at most, of the rounding of a mean in float32.
        assert np.abs(after[name] - values).max() <= 1


def test_the_batches_do_not_matter(models):
    source, quantised = models
    other = onnx.ModelProto()
    other.CopyFrom(quantised)
    correct_biases(quantised, source, IMAGES[:9])
    correct_biases(other, source, np.concatenate([IMAGES[8:9], IMAGES[:8]]))
    biases = integer_biases(other)
    for name, values in integer_biases(quantised).items():
        assert np.abs(biases[name] - values).max() <= 1


def test_a_bias_stays_within_32_bits(models):
    source, quantised = models
    for tensor in source.graph.initializer:
        if tensor.name == "b0":
            tensor.CopyFrom(numpy_helper.from_array(np.full(8, 1e9, dtype=np.float32), "b0"))
    correct_biases(quantised, source, IMAGES)
    first = next(iter(integer_biases(quantised).values()))
    assert (first == np.iinfo(np.int32).max).all()
