"""The towers in int8: as much of each, and as finely, as passes the gate on this processor.

Without VNNI a processor adds the products of two pairs of bytes in 16 bits, which may not hold
them: weights of 8 bits then give wrong sums, of 7 bits right ones. What rounding costs in
pictures comes from the first convolution above all, and from the depthwise ones, a small part of
the arithmetic: they are the first to go back to float32.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.candidates import CANDIDATES, Candidate, Tried
from export.int8 import Recipe, write_int8
from export.int8_pictures import PictureRecipe
from export.openvino_graph import write_openvino
from export.products import Products
from export.quality import failures
from export.static_int8 import Bits
from newshelf.errors import SetupError

__all__ = ["INT8", "PICTURES", "TEXTS", "quantise"]

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
        path: of the quantised ``.onnx``; OpenVINO's files go beside it.
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
