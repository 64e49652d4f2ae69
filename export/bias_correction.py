"""What rounding shifts in the mean of each channel, put back into the biases.

Rounded weights and ranges that cut something off move the mean of what a convolution answers,
and the layers after it add up the shifts. Moved back one convolution after the other, the mean
of each channel is float32's again, and most of the error is gone.

Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization
and Bias Correction" (2019), section 4.2: the empirical form.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from export.subgraph import subgraph
from export.towers import IMAGE_INPUTS

__all__ = ["correct_biases"]

_BATCH = 8
(_IMAGE,) = IMAGE_INPUTS
_BIAS = 2
"""Its place among a convolution's inputs; it may be absent."""
_INT32 = np.iinfo(np.int32)

Floats = NDArray[np.float32]


def correct_biases(quantised: onnx.ModelProto, source: onnx.ModelProto, images: Floats) -> None:
    """Change the biases of the quantised convolutions.

    Args:
        quantised: with ``QuantizeLinear`` and ``DequantizeLinear``; changed in place.
            Convolutions are called as in ``source``, and the bias of a quantised one is
            int32.
        source: the float32 model.
        images: ``(N, 3, size, size)``, what both read as ``image``.
    """
    wanted = _means(source, images)
    tensors = {tensor.name: tensor for tensor in quantised.graph.initializer}
    producers = {name: node for node in quantised.graph.node for name in node.output}
    convolutions = _convolutions(quantised)
    parts = _parts(quantised, convolutions)
    answers: dict[str, Floats] = {_IMAGE: images}
    for at, (node, part) in enumerate(zip(convolutions, parts, strict=True)):
        answer = _run(part, answers)
        bias = _quantised_bias(node, producers)
        if bias is not None:
            shift = wanted[node.name] - answer.mean(axis=(0, 2, 3))
            moved = _move(tensors[bias.input[0]], tensors[bias.input[1]], shift)
            answer += moved[:, None, None]
        answers[node.output[0]] = answer
        needed = {value.name for later in parts[at + 1 :] for value in later.graph.input}
        answers = {name: value for name, value in answers.items() if name in needed}


def _means(model: onnx.ModelProto, images: Floats) -> dict[str, Floats]:
    """Of each channel that a convolution answers, before its activation: ``(channels,)``."""
    convolutions = _convolutions(model)
    exposed = subgraph(model, [_IMAGE], [node.output[0] for node in convolutions])
    session = _session(exposed)
    # (N, channels) of each convolution; what is inside a channel is not kept.
    batches = [
        [answer.mean(axis=(2, 3)) for answer in session.run(None, {_IMAGE: batch})]
        for batch in np.split(images, range(_BATCH, len(images), _BATCH))
    ]
    return {
        node.name: np.concatenate(rows).mean(axis=0)
        for node, rows in zip(convolutions, zip(*batches, strict=True), strict=True)
    }


def _convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def _parts(model: onnx.ModelProto, convolutions: Sequence[onnx.NodeProto]) -> list[onnx.ModelProto]:
    """What computes each convolution's output from those of the ones before it."""
    outputs = [node.output[0] for node in convolutions]
    return [subgraph(model, [_IMAGE, *outputs[:at]], [output]) for at, output in enumerate(outputs)]


def _quantised_bias(
    node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]
) -> onnx.NodeProto | None:
    """What turns a convolution's bias into float32; None where it is float32 already."""
    for name in node.input[_BIAS:]:
        maker = producers.get(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return maker
    return None


def _move(bias: onnx.TensorProto, scale: onnx.TensorProto, shift: Floats) -> Floats:
    """Add ``shift`` as nearly as ``scale`` allows, and return what was added; ``(channels,)``."""
    before, steps = numpy_helper.to_array(bias), numpy_helper.to_array(scale)
    after = np.clip(np.rint(before + shift / steps), _INT32.min, _INT32.max).astype(np.int32)
    bias.CopyFrom(numpy_helper.from_array(after, bias.name))
    moved: Floats = ((after.astype(np.int64) - before) * steps).astype(np.float32)
    return moved


def _run(model: onnx.ModelProto, answers: Mapping[str, Floats]) -> Floats:
    session = _session(model)
    names = [value.name for value in model.graph.input]
    count = len(answers[names[0]])
    batches = [
        session.run(None, {name: answers[name][start : start + _BATCH] for name in names})[0]
        for start in range(0, count, _BATCH)
    ]
    return np.concatenate(batches)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # As the file says it, whatever a runtime makes of it on one processor or another.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
