"""The encoder in less than float32: int8 for its image tower, float16 for all of it."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.bias_correction import correct_biases
from export.image_tower import tower_output
from export.subgraph import subgraph
from newshelf.errors import SetupError
from newshelf.nn.inputs import prepare_pictures
from newshelf.nn.spec import ImageInput
from newshelf.serving.runtimes import IMAGE_FEATURES

__all__ = ["Recipe", "kept_convolutions", "write_float16", "write_int8"]

_BATCH = 8
_CORRECTING = 32
"""Pictures of those, for the channels' means: all inner values of a tower's stage are kept."""
_REDUCED_BITS = 7
_KEPT = {
    "none": "",
    "first": ", first convolution in float32",
    "light": ", first and depthwise convolutions in float32",
}
_QUANTISED = ["Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool", "GlobalAveragePool"]
"""Activations and additions too: what lies between two of them then stays in int8."""


@dataclass(frozen=True)
class Recipe:
    """How much of the tower is quantised, and how finely."""

    weight_bits: Literal[7, 8]
    float32: Literal["none", "first", "light"] = "none"
    """Which convolutions are not: the first, or also those in which each channel is alone."""

    def __str__(self) -> str:
        return f"weights of {self.weight_bits} bits{_KEPT[self.float32]}"


def write_int8(
    source: Path,
    path: Path,
    pixels: Sequence[NDArray[np.uint8]],
    spec: ImageInput,
    recipe: Recipe,
) -> None:
    """Quantise the image tower, and leave the rest as it is.

    Static and per channel (Jacob et al., 2018): weights symmetric int8 with one scale per
    output channel, activations uint8 with one range per tensor, the mean over the batches of
    each one's least and largest value. Then the biases are corrected.

    Args:
        source: the float32 encoder.
        path: of the quantised one, whose tower's output is called ``IMAGE_FEATURES``.
        pixels: pictures to calibrate with, ``(size, size, 3)`` uint8 each.
        spec: how they are normalised.
        recipe: how much is quantised.

    Raises:
        SetupError: there is no tower, or it cannot be quantised.
    """
    model = onnx.load(source)
    features = tower_output(model.graph, spec.features)
    if features is None or not pixels:
        raise SetupError("there are no pictures to quantise an image tower for")
    _rename(model.graph, features, IMAGE_FEATURES)
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=path.parent) as folder, _quiet():
        part, quantised = Path(folder) / "tower.onnx", Path(folder) / "int8.onnx"
        # Alone, none of the texts' work is done for it.
        alone = subgraph(model, ["image"], [IMAGE_FEATURES])
        onnx.save(alone, part)
        try:
            quantize_static(
                str(part),
                str(quantised),
                _Pictures(pixels, spec),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                op_types_to_quantize=_QUANTISED,
                nodes_to_exclude=kept_convolutions(alone.graph, recipe),
                reduce_range=recipe.weight_bits == _REDUCED_BITS,
                extra_options={"CalibMovingAverage": True},
            )
        except Exception as error:
            # The quantiser raises anything where it does not know an operator.
            raise SetupError(f"the image tower cannot be quantised: {error}") from error
        made = onnx.load(quantised)
        correct_biases(made, alone, prepare_pictures(pixels[:_CORRECTING], spec))
        _replace(model, alone, made)
    onnx.save(model, path)


def kept_convolutions(graph: onnx.GraphProto, recipe: Recipe) -> list[str]:
    """The names of those that stay in float32."""
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    light = [
        node.name
        for at, node in enumerate(convolutions)
        # (channels out, channels in per group, height, width)
        if at == 0 or shapes[node.input[1]][1] == 1
    ]
    return {"none": [], "first": light[:1], "light": light}[recipe.float32]


def write_float16(source: Path, path: Path) -> None:
    """Convert weights and arithmetic to float16; inputs and outputs stay float32."""
    with _quiet():
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), path)


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    """Batches of normalised pictures."""

    def __init__(self, pixels: Sequence[NDArray[np.uint8]], spec: ImageInput) -> None:
        starts = range(0, len(pixels), _BATCH)
        self._batches = (
            {"image": prepare_pictures(pixels[start : start + _BATCH], spec)} for start in starts
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch; None after the last."""
        return next(self._batches, None)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new
    for value in graph.value_info:
        if value.name == old:
            value.name = new


def _replace(model: onnx.ModelProto, before: onnx.ModelProto, tower: onnx.ModelProto) -> None:
    """Put the nodes of ``tower`` in the place of those of ``before``, a part of ``model``."""
    graph = model.graph
    made = {name for node in before.graph.node for name in node.output}
    # Names of what is new in the tower must not meet those of the texts.
    prefixed = onnx.compose.add_prefix(
        tower, "int8_", rename_inputs=False, rename_outputs=False, rename_functions=False
    )
    rest = [node for node in graph.node if not made.intersection(node.output)]
    read = {name for node in rest for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    values = [value for value in graph.value_info if value.name not in made - {IMAGE_FEATURES}]
    nodes = [*prefixed.graph.node, *rest]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*prefixed.graph.initializer, *initializers])
    graph.value_info.extend(values)
    known = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(entry for entry in prefixed.opset_import if entry.domain not in known)


@contextmanager
def _quiet() -> Iterator[None]:
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
