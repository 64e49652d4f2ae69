"""The encoder with its towers in int8."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.int8_pictures import PictureRecipe, quantise_pictures
from export.int8_texts import quantise_texts
from export.products import Products
from export.static_int8 import Bits
from export.subgraph import subgraph
from export.towers import IMAGE_INPUTS, TEXT_INPUTS, tower_output
from newshelf.errors import SetupError
from newshelf.serving.runtimes import IMAGE_FEATURES

__all__ = ["Recipe", "write_int8"]


@dataclass(frozen=True)
class Recipe:
    """What is quantised, and how finely; None for a tower that is not."""

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
