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

from export.image_tower import tower_nodes
from newshelf.errors import SetupError
from newshelf.nn.inputs import prepare_pictures
from newshelf.nn.spec import ImageInput
from newshelf.serving.runtimes import IMAGE_FEATURES

__all__ = ["Recipe", "light_convolutions", "write_float16", "write_int8"]

_BATCH = 8
_REDUCED_BITS = 7
_QUANTISED = ["Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool", "GlobalAveragePool"]
"""Activations and additions too: what lies between two of them then stays in int8."""


@dataclass(frozen=True)
class Recipe:
    """How much of the tower is quantised, and how finely."""

    weight_bits: Literal[7, 8]
    light_convolutions: bool
    """Whether the first and the depthwise convolutions are, too."""

    def __str__(self) -> str:
        kept = "" if self.light_convolutions else ", first and depthwise convolutions in float32"
        return f"weights of {self.weight_bits} bits{kept}"


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
    each one's least and largest value.

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
    tower = tower_nodes(model.graph, spec.features)
    if tower is None or not pixels:
        raise SetupError("there are no pictures to quantise an image tower for")
    _rename(model.graph, tower.features, IMAGE_FEATURES)
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=path.parent) as folder, _quiet():
        part, quantised = Path(folder) / "tower.onnx", Path(folder) / "int8.onnx"
        alone = _extracted(model, tower.names)
        onnx.save(alone, part)
        kept = [] if recipe.light_convolutions else light_convolutions(alone.graph)
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
                nodes_to_exclude=kept,
                reduce_range=recipe.weight_bits == _REDUCED_BITS,
                extra_options={"CalibMovingAverage": True},
            )
        except Exception as error:
            # The quantiser raises anything where it does not know an operator.
            raise SetupError(f"the image tower cannot be quantised: {error}") from error
        _replace(model, tower.names, onnx.load(quantised))
    onnx.save(model, path)


def light_convolutions(graph: onnx.GraphProto) -> list[str]:
    """The first convolution, and those in which each channel is alone; by name."""
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    # (channels out, channels in per group, height, width)
    return [
        node.name
        for at, node in enumerate(convolutions)
        if at == 0 or shapes[node.input[1]][1] == 1
    ]


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


def _extracted(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The tower as a model of its own, from ``image`` to ``IMAGE_FEATURES``.

    Calibrated alone, none of the texts' work is done for it.
    """
    kept = set(names)
    nodes = [node for node in model.graph.node if node.name in kept]
    produced = {name: node for node in nodes for name in node.output}
    needed: list[str] = [IMAGE_FEATURES]
    used: set[str] = set()
    while needed:
        node = produced.get(needed.pop())
        if node is not None and node.name not in used:
            used.add(node.name)
            needed += node.input
    nodes = [node for node in nodes if node.name in used]
    read = {name for node in nodes for name in node.input}
    values = {value.name: value for value in model.graph.value_info}
    graph = onnx.helper.make_graph(
        nodes,
        "tower",
        [value for value in model.graph.input if value.name == "image"],
        [values[IMAGE_FEATURES]],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    made = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    made.ir_version = model.ir_version
    return made


def _replace(model: onnx.ModelProto, names: Sequence[str], tower: onnx.ModelProto) -> None:
    """Put the nodes of ``tower`` in the place of those that computed ``IMAGE_FEATURES``."""
    graph = model.graph
    made = {name for node in _extracted(model, names).graph.node for name in node.output}
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
