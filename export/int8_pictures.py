"""The image tower in int8."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from export.bias_correction import correct_biases
from export.static_int8 import Bits, quantise_static
from newshelf.nn.inputs import prepare_pictures
from newshelf.nn.spec import ImageInput

__all__ = ["PictureRecipe", "kept_convolutions", "quantise_pictures"]

_BATCH = 8
_CORRECTING = 32
"""Pictures of those, for the channels' means: all inner values of a tower's stage are kept."""
_KEPT = {
    "none": "",
    "first": ", first convolution in float32",
    "light": ", first and depthwise convolutions in float32",
}
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool", "GlobalAveragePool")
"""Activations and additions too: what lies between two of them then stays in int8."""


@dataclass(frozen=True)
class PictureRecipe:
    """How much of the tower is quantised, and how finely."""

    bits: Bits
    float32: Literal["none", "first", "light"] = "none"
    """Which convolutions are not: the first, or also those in which each channel is alone."""

    def __str__(self) -> str:
        return f"weights of {self.bits} bits{_KEPT[self.float32]}"


def quantise_pictures(
    tower: onnx.ModelProto,
    pixels: Sequence[NDArray[np.uint8]],
    spec: ImageInput,
    recipe: PictureRecipe,
    scratch: Path,
) -> onnx.ModelProto:
    """Quantise the tower, and correct its biases.

    Args:
        tower: float32, reads ``image``.
        pixels: pictures to calibrate with, ``(size, size, 3)`` uint8 each.
        spec: how they are normalised.
        recipe: how much is quantised.
        scratch: a folder for files that are gone in the end.

    Raises:
        SetupError: it cannot be quantised.
    """
    made = quantise_static(
        tower,
        _batches(pixels, spec),
        scratch,
        operators=_OPERATORS,
        bits=recipe.bits,
        kept=kept_convolutions(tower.graph, recipe),
    )
    correct_biases(made, tower, prepare_pictures(pixels[:_CORRECTING], spec))
    return made


def kept_convolutions(graph: onnx.GraphProto, recipe: PictureRecipe) -> list[str]:
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


def _batches(
    pixels: Sequence[NDArray[np.uint8]], spec: ImageInput
) -> Iterator[dict[str, NDArray[Any]]]:
    for start in range(0, len(pixels), _BATCH):
        yield {"image": prepare_pictures(pixels[start : start + _BATCH], spec)}
