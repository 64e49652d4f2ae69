"""The encoder with its towers in int8, as much and as finely as passes the quality limits.

Without VNNI a processor adds the products of two pairs of bytes in 16 bits, which 8-bit weights
overflow and 7-bit weights do not. Most of the rounding error in pictures comes from the first
convolution and the depthwise ones, a small part of the arithmetic: they are the first to stay in
float32. Of the text tower, the linear layers are quantised.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from export.candidates import CANDIDATES, Candidate, Tried
from export.graphs import write_openvino
from export.int8_graph import (
    IMAGE_INPUTS,
    TEXT_INPUTS,
    Bits,
    correct_biases,
    linear_layers,
    quantise_static,
    smooth,
    subgraph,
    tower_output,
)
from export.quality import Products, failures
from newshelf.errors import SetupError
from newshelf.nn.inputs import prepare_pictures
from newshelf.nn.spec import ImageInput
from newshelf.serving.runtimes.base import IMAGE_FEATURES

_BATCH = 8
_CORRECTING = 32
"""Pictures of those, for the channels' means: all inner values of a tower's stage are kept."""
_KEPT = {
    "none": "",
    "first": ", first convolution in float32",
    "light": ", first and depthwise convolutions in float32",
}
_PICTURE_OPERATORS = (
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Clip",
    "Relu",
    "MaxPool",
    "GlobalAveragePool",
)
"""Activations and additions too: what lies between two of them then stays in int8."""


@dataclass(frozen=True)
class PictureRecipe:
    """The quantised part of a tower, and the bits of its weights."""

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
        operators=_PICTURE_OPERATORS,
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


_TEXT_OPERATORS = ("MatMul",)


def quantise_texts(
    tower: onnx.ModelProto,
    texts: Sequence[dict[str, NDArray[Any]]],
    bits: Bits,
    scratch: Path,
) -> onnx.ModelProto:
    """Quantise the inputs and weights of the linear layers, which are smoothed before.

    Products of two activations, softmax, normalisation and sums stay in float32: they are a
    small part of the arithmetic, and one range for all channels of a sum is too coarse.

    Args:
        tower: float32, reads ``input_ids`` and ``attention_mask``; not changed.
        texts: to calibrate with, each alone and so without padding, ``(1, tokens)``.
        bits: of the weights.
        scratch: a folder for files that are gone in the end.

    Raises:
        SetupError: it cannot be quantised.
    """
    smoothed = smooth(tower, texts)
    linear = {node.name for node in linear_layers(smoothed)}
    others = [
        node.name
        for node in smoothed.graph.node
        if node.op_type in _TEXT_OPERATORS and node.name not in linear
    ]
    return quantise_static(
        smoothed,
        texts,
        scratch,
        operators=_TEXT_OPERATORS,
        bits=bits,
        kept=others,
        plain_outputs=_TEXT_OPERATORS,
    )


@dataclass(frozen=True)
class Recipe:
    """The recipe of each tower; None for a tower that is not quantised."""

    pictures: PictureRecipe | None
    texts: Bits | None

    def __str__(self) -> str:
        parts = []
        if self.pictures is not None:
            parts.append(f"pictures: {self.pictures}")
        if self.texts is not None:
            parts.append(f"texts: weights of {self.texts} bits")
        return "; ".join(parts)


def write_int8(source: Path, path: Path, calibrating: Products, recipe: Recipe) -> None:
    """Quantise the towers, and leave the rest as it is.

    Args:
        source: the float32 encoder.
        path: of the quantised one, whose image tower's output is called ``IMAGE_FEATURES``.
        calibrating: products whose pictures and texts give the ranges.
        recipe: how much is quantised.

    Raises:
        SetupError: there is no such tower, or it cannot be quantised.
    """
    model = onnx.load(source)
    spec = calibrating.spec
    if recipe.pictures is not None:
        pictures, pixels = recipe.pictures, calibrating.pictures()
        if spec.image is None or not pixels:
            raise SetupError("there are no pictures to quantise an image tower for")
        image = spec.image
        found = tower_output(model.graph, IMAGE_INPUTS, image.features)
        _rename(model.graph, found, IMAGE_FEATURES)
        _replace(
            model,
            IMAGE_INPUTS,
            IMAGE_FEATURES,
            lambda tower: quantise_pictures(tower, pixels, image, pictures, path.parent),
        )
    if recipe.texts is not None:
        bits, texts = recipe.texts, calibrating.token_rows()
        if spec.text is None or not texts:
            raise SetupError("there are no texts to quantise a text tower for")
        features = tower_output(model.graph, TEXT_INPUTS, spec.text.features)
        _replace(
            model,
            TEXT_INPUTS,
            features,
            lambda tower: quantise_texts(tower, texts, bits, path.parent),
        )
    onnx.save(model, path)


def _rename(graph: onnx.GraphProto, old: str | None, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new
    for value in graph.value_info:
        if value.name == old:
            value.name = new


def _replace(
    model: onnx.ModelProto,
    inputs: tuple[str, ...],
    features: str | None,
    quantise: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    """Put what ``quantise`` makes of the tower that computes ``features`` in its place."""
    graph = model.graph
    if features is None or not any(features in node.output for node in graph.node):
        raise SetupError("the tower's features were not found in the encoder's graph")
    tower = subgraph(model, inputs, [features])
    made = {name for node in tower.graph.node for name in node.output}
    # Names of what is new in a tower must not meet those of the other.
    prefixed = onnx.compose.add_prefix(
        quantise(tower),
        f"int8_{inputs[0]}_",
        rename_inputs=False,
        rename_outputs=False,
        rename_functions=False,
    )
    rest = [node for node in graph.node if not made.intersection(node.output)]
    read = {name for node in rest for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    values = [value for value in graph.value_info if value.name not in made - {features}]
    nodes = [*prefixed.graph.node, *rest]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*prefixed.graph.initializer, *initializers])
    graph.value_info.extend(values)
    known = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(entry for entry in prefixed.opset_import if entry.domain not in known)


PICTURES: tuple[PictureRecipe | None, ...] = (
    PictureRecipe(8),
    PictureRecipe(8, "first"),
    PictureRecipe(7),
    PictureRecipe(7, "first"),
    PictureRecipe(7, "light"),
    None,
)
"""With VNNI, then without it: from the fastest to the most careful."""
TEXTS: tuple[Bits | None, ...] = (8, 7, None)
INT8 = tuple(one for one in CANDIDATES if one.precision == "int8")


def quantise(
    source: Path, path: Path, calibrating: Products, attempt: Callable[[Candidate], Tried]
) -> list[Tried]:
    """Write the int8 encoder, for each runtime by the first recipe with which it passes.

    Args:
        source: the float32 encoder.
        path: of the quantised ``.onnx``; OpenVINO's files go next to it.
        calibrating: whose pictures and texts give the ranges; others than those that
            ``attempt`` judges by.
        attempt: measures a candidate on the files that were written.

    Returns:
        What became of each candidate in int8; of one that never passed, by the last recipe.
    """
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=path.parent) as folder:
        made: dict[Recipe, Path] = {}

        def try_recipe(candidate: Candidate, recipe: Recipe) -> Tried:
            try:
                if recipe not in made:
                    written = Path(folder) / f"{len(made)}.onnx"
                    write_int8(source, written, calibrating, recipe)
                    made[recipe] = written
            except SetupError as error:
                return Tried(candidate, (), (f"cannot be made: {error}",))
            _put(made[recipe], path, candidate)
            return replace(attempt(candidate), recipe=str(recipe))

        return [_descend(calibrating, candidate, try_recipe) for candidate in INT8]


def _descend(
    calibrating: Products,
    candidate: Candidate,
    try_recipe: Callable[[Candidate, Recipe], Tried],
) -> Tried:
    """Go down the recipes of the tower that fails, until the candidate passes."""
    pictures = iter(PICTURES if calibrating.pictures() else (None,))
    texts = iter(TEXTS if calibrating.token_rows() else (None,))
    recipe, before = Recipe(next(pictures), next(texts)), None
    tried = Tried(candidate, (), ("there is nothing to quantise",))
    while recipe not in (before, Recipe(None, None)):
        tried = try_recipe(candidate, recipe)
        if not tried.reasons:
            break
        failing = {view.view for view in tried.views if failures(view)}
        # Where no tower fails by itself, either may be why.
        either = not failing.intersection(("pictures", "texts"))
        before = recipe
        if either or "pictures" in failing:
            recipe = replace(recipe, pictures=next(pictures, None))
        if either or "texts" in failing:
            recipe = replace(recipe, texts=next(texts, None))
    return tried


def _put(made: Path, path: Path, candidate: Candidate) -> None:
    if candidate.runtime == "openvino":
        write_openvino(made, path.with_suffix(".xml"))
    else:
        # A new file: whoever has the old one open keeps it.
        path.unlink(missing_ok=True)
        shutil.copyfile(made, path)
