"""Operations on ONNX graphs for int8: subgraphs, static quantisation, smoothing, bias correction.

Smoothing (Xiao et al., "SmoothQuant", 2023, equation 4). In a transformer some channels are a
hundred times wider than others, and one range for all leaves the narrow ones few levels. Dividing
each channel by a factor and multiplying the rows of the weights that read it by the same changes
nothing in float32 and evens the channels out: ``s_j = max|X_j|^α / max|W_j|^(1 - α)``.

Bias correction (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019, section 4.2, the empirical form). Rounded weights and clipped ranges shift the
mean of each channel of a convolution's output, and later layers add up the shifts. Correcting one
convolution after the other restores float32's means.
"""

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.utils import Extractor
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from newshelf.errors import SetupError

Bits = Literal[7, 8]
"""Of the weights."""
Batch = Mapping[str, NDArray[Any]]

_REDUCED_BITS = 7


def quantise_static(
    model: onnx.ModelProto,
    batches: Iterable[Batch],
    scratch: Path,
    *,
    operators: Sequence[str],
    bits: Bits,
    kept: Sequence[str] = (),
    plain_outputs: Collection[str] = (),
) -> onnx.ModelProto:
    """Quantise per channel (Jacob et al., 2018).

    Weights are symmetric int8 with one scale per output channel, activations uint8 with one
    range per tensor, the mean over the batches of each one's least and largest value.

    Args:
        model: float32; not changed.
        batches: its inputs, to find the ranges with.
        scratch: a folder for files that are gone in the end.
        operators: the types of the nodes that are quantised.
        bits: of the weights.
        kept: names of nodes that stay in float32.
        plain_outputs: types whose inputs alone are quantised.

    Raises:
        SetupError: it cannot be quantised.
    """
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=scratch) as folder, quietly():
        source, made = Path(folder) / "part.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        try:
            quantize_static(
                str(source),
                str(made),
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=list(kept),
                reduce_range=bits == _REDUCED_BITS,
                extra_options={
                    "CalibMovingAverage": True,
                    "OpTypesToExcludeOutputQuantization": list(plain_outputs),
                },
            )
        except Exception as error:
            # The quantiser raises anything where it does not know an operator.
            raise SetupError(f"the tower cannot be quantised: {error}") from error
        return onnx.load(made)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence remarks on what could be prepared, and on values that float16 rounds to 0."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches one after the other, as the quantiser asks for them."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Batch | None:
        """The next batch; None after the last."""
        return next(self._batches, None)


def subgraph(
    model: onnx.ModelProto, inputs: Iterable[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return the nodes that compute ``outputs`` from ``inputs``.

    Args:
        model: its nodes in an order in which they can run; not changed.
        inputs: tensors that are given; those that are not read are left out.
        outputs: tensors that are sought.
    """
    extractor = Extractor(model)
    names = list(inputs)
    for name in (*names, *outputs):
        # A quantised graph does not tell the shapes of what is inside it.
        extractor.value_infos.setdefault(
            name, onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    part = extractor.extract_model(names, list(outputs))
    graph = part.graph
    read = {name for node in graph.node for name in node.input}
    given = [value for value in graph.input if value.name in read]
    # Inner shapes go: the extractor counts inputs and outputs among them, and a quantiser
    # infers them again.
    del graph.input[:], graph.value_info[:]
    graph.input.extend(given)
    return part


_ALPHA = 0.75
"""How much is moved. MiniLM: 0.5 moves too little (cosine 0.990), 0.75 to 0.95 reach 0.998."""
_LEAST = 1e-5
"""Of a channel or factor: one that is never used stays as it is, nearly."""
_MATRIX = 2

Floats = NDArray[np.float32]


def smooth(model: onnx.ModelProto, batches: Sequence[dict[str, NDArray[Any]]]) -> onnx.ModelProto:
    """A model that computes the same, with even channels before its linear layers.

    Args:
        model: float32; not changed.
        batches: its inputs, to find the widths with.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    uses = Counter(name for node in made.graph.node for name in node.input)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in linear_layers(made):
        # Weights that another layer reads, too, cannot be scaled for both.
        if uses[node.input[1]] == 1:
            readers.setdefault(node.input[0], []).append(node)
    widths = _widths(model, list(readers), batches)
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    for name, nodes in readers.items():
        weights = [tensors[node.input[1]] for node in nodes]
        factors = _factors(widths[name], [numpy_helper.to_array(one) for one in weights])
        for weight in weights:
            scaled = numpy_helper.to_array(weight) * factors[:, None]
            weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
        _divide(made.graph, name, nodes, factors)
    return made


def linear_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Products with weights ``(channels in, channels out)``; not those of two activations."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == _MATRIX}
    return [
        node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights
    ]


def _widths(
    model: onnx.ModelProto, names: Sequence[str], batches: Sequence[dict[str, NDArray[Any]]]
) -> dict[str, Floats]:
    """The largest absolute value of each channel, the last axis; ``(channels,)``."""
    exposed = subgraph(model, [value.name for value in model.graph.input], names)
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: dict[str, Floats] = {}
    for batch in batches:
        for name, values in zip(names, session.run(None, batch), strict=True):
            widest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            found[name] = np.maximum(found.get(name, 0), widest)
    return found


def _factors(widths: Floats, weights: Sequence[Floats]) -> Floats:
    rows = np.max([np.abs(one).max(axis=1) for one in weights], axis=0)
    moved = np.maximum(widths, _LEAST) ** _ALPHA / np.maximum(rows, _LEAST) ** (1 - _ALPHA)
    factors: Floats = np.maximum(moved, _LEAST).astype(np.float32)
    return factors


def _divide(
    graph: onnx.GraphProto, name: str, nodes: Sequence[onnx.NodeProto], factors: Floats
) -> None:
    """Have ``nodes`` read ``name / factors``."""
    smoothed, inverse = f"{name}_smoothed", f"{name}_smoothing"
    graph.initializer.append(numpy_helper.from_array(1 / factors, inverse))
    names = {node.name for node in nodes}
    first = next(at for at, node in enumerate(graph.node) if node.name in names)
    graph.node.insert(
        first, onnx.helper.make_node("Mul", [name, inverse], [smoothed], name=smoothed)
    )
    for node in nodes:
        node.input[0] = smoothed


IMAGE_INPUTS = ("image",)
TEXT_INPUTS = ("input_ids", "attention_mask")

_RANK_OF_FEATURES = 2


def tower_output(graph: onnx.GraphProto, inputs: Collection[str], features: int) -> str | None:
    """The tensor ``(N, features)`` that the graph computes from ``inputs`` alone.

    Args:
        graph: of an encoder.
        inputs: those of the tower; an exporter drops what an absent tower would have read.
        features: the tower's width.

    Returns:
        Its name; None without a tower.
    """
    others = {value.name for value in graph.input if value.name not in inputs}
    own = set(inputs)
    outputs: list[str] = []
    for node in graph.node:
        if others.intersection(node.input):
            others.update(node.output)
        elif own.intersection(node.input):
            own.update(node.output)
            outputs += node.output
    shaped = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    wide = [
        name
        for name in outputs
        if len(dims := shaped.get(name, ())) == _RANK_OF_FEATURES and dims[1].dim_value == features
    ]
    return wide[-1] if wide else None


_BATCH = 8
(_IMAGE,) = IMAGE_INPUTS
_BIAS = 2
"""Its place among a convolution's inputs; it may be absent."""
_INT32 = np.iinfo(np.int32)


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
    """Return the nodes that compute each convolution's output from the previous ones' outputs."""
    outputs = [node.output[0] for node in convolutions]
    return [subgraph(model, [_IMAGE, *outputs[:at]], [output]) for at, output in enumerate(outputs)]


def _quantised_bias(
    node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]
) -> onnx.NodeProto | None:
    """Return the node that converts a convolution's bias to float32, or None if it is float32."""
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
