"""The image tower in int8: as much of it, and as finely, as passes the gate on this processor.

Without VNNI a processor adds the products of two pairs of bytes in 16 bits, which may not hold
them: weights of 8 bits then give wrong sums, of 7 bits right ones. What rounding costs comes
from the first convolution above all, and from the depthwise ones, a small part of the
arithmetic: they are the first to go back to float32.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.candidates import CANDIDATES, Candidate, Tried
from export.openvino_graph import write_openvino
from export.products import Products
from export.quantize import Recipe, write_int8
from newshelf.errors import SetupError

__all__ = ["INT8", "RECIPES", "quantise"]

RECIPES = (
    Recipe(weight_bits=8),
    Recipe(weight_bits=8, float32="first"),
    Recipe(weight_bits=7),
    Recipe(weight_bits=7, float32="first"),
    Recipe(weight_bits=7, float32="light"),
)
"""With VNNI, then without it: from the fastest to the most careful."""
INT8 = tuple(one for one in CANDIDATES if one.precision == "int8")


def quantise(
    source: Path, path: Path, calibrating: Products, attempt: Callable[[Candidate], Tried]
) -> list[Tried]:
    """Write the int8 encoder, for each runtime by the first recipe with which it passes.

    Args:
        source: the float32 encoder.
        path: of the quantised ``.onnx``; OpenVINO's files go beside it.
        calibrating: whose pictures give the ranges; others than those that ``attempt`` judges by.
        attempt: measures a candidate on the files that were written.

    Returns:
        What became of each candidate in int8; of one that never passed, by the last recipe.
    """
    if calibrating.spec.image is None:
        return [attempt(one) for one in INT8]
    pixels = calibrating.pictures()
    found: dict[Candidate, Tried] = {}
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        for recipe in RECIPES:
            left = [one for one in INT8 if one not in found or found[one].reasons]
            if not left:
                break
            try:
                write_int8(source, made, pixels, calibrating.spec.image, recipe)
            except SetupError:
                # Told by the candidates, which do not find a file.
                return [attempt(one) for one in INT8]
            for candidate in left:
                _put(made, path, candidate)
                found[candidate] = replace(attempt(candidate), recipe=str(recipe))
    return [found[one] for one in INT8]


def _put(made: Path, path: Path, candidate: Candidate) -> None:
    if candidate.runtime == "openvino":
        write_openvino(made, path.with_suffix(".xml"))
    else:
        # A new file: whoever has the old one open keeps it.
        path.unlink(missing_ok=True)
        shutil.copyfile(made, path)
