"""The image tower in int8: as much of it, and as finely, as passes the gate on this processor.

Without VNNI a processor adds the products of two pairs of bytes in 16 bits, which may not hold
them: weights of 8 bits then give wrong sums (EfficientNet-Lite0: cosine .92), of 7 bits right
ones (.99). What is left of the error stems from the first and the depthwise convolutions, a
small part of the arithmetic: in float32 they bring .998.
"""

from collections.abc import Callable
from pathlib import Path

from export.candidates import CANDIDATES, Candidate, Tried
from export.openvino_graph import write_openvino
from export.products import Products
from export.quantize import Recipe, write_int8
from newshelf.errors import SetupError

__all__ = ["INT8", "RECIPES", "quantise"]

RECIPES = (
    Recipe(weight_bits=8, light_convolutions=True),
    Recipe(weight_bits=7, light_convolutions=True),
    Recipe(weight_bits=7, light_convolutions=False),
)
"""From the fastest to the most careful."""
INT8 = tuple(one for one in CANDIDATES if one.precision == "int8")


def quantise(
    source: Path, path: Path, calibrating: Products, attempt: Callable[[Candidate], Tried]
) -> tuple[Recipe | None, list[Tried]]:
    """Write the int8 encoder by the first recipe with which a runtime passes.

    Args:
        source: the float32 encoder.
        path: of the quantised ``.onnx``; OpenVINO's files go beside it.
        calibrating: whose pictures give the ranges; others than those that ``attempt`` judges by.
        attempt: measures a candidate on the files that were written.

    Returns:
        The recipe, and what became of each candidate in int8; when none passed, of the last
        recipe. None for the recipe when there is nothing to quantise.
    """
    if calibrating.spec.image is None:
        return None, [attempt(one) for one in INT8]
    pixels = calibrating.pictures()
    for recipe in RECIPES:
        try:
            write_int8(source, path, pixels, calibrating.spec.image, recipe)
        except SetupError:
            # Told by the candidates, which do not find a file.
            return None, [attempt(one) for one in INT8]
        write_openvino(path, path.with_suffix(".xml"))
        tried = [attempt(one) for one in INT8]
        if any(not one.reasons for one in tried):
            break
    return recipe, tried
