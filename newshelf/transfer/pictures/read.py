"""Pictures of a catalogue in memory, each checked before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor

from newshelf.catalog import Catalog
from newshelf.errors import BadPicture, TooLarge, TrainingError
from newshelf.nn.inputs import decode_picture
from newshelf.nn.spec import ImageInput

__all__ = ["Pictures", "read_pictures"]

_SHOWN = 10


@dataclass(frozen=True)
class Pictures:
    """n decoded pictures."""

    rows: Tensor
    """``(n,)`` int64: their rows of the catalogue's items."""
    pixels: Tensor
    """``(n, 3, size, size)`` uint8."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> "Pictures":
        """Some of them, by position ``(m,)`` int64."""
        return Pictures(self.rows[index], self.pixels[index])


def read_pictures(
    catalog: Catalog,
    rows: Sequence[int],
    size: int,
    console: Console,
    *,
    damaged: Literal["skip", "refuse"] = "skip",
    whole: bool = False,
) -> Pictures:
    """Decode the pictures of ``rows`` as serving does: centre square, resized.

    Everything is decoded here, so that no damaged file is met in the middle of an epoch.

    Args:
        catalog: where they are; rows without a picture are left out.
        rows: of its items.
        size: height and width in pixels.
        console: told which files are left out.
        damaged: ``skip`` leaves damaged pictures out, ``refuse`` raises on them.
        whole: squeeze the whole picture into the square instead of cutting the centre out.

    Raises:
        TrainingError: a damaged picture under ``refuse``, naming each file; or none is left.
    """
    # What only decodes does not read mean and deviation.
    plain = ImageInput(architecture="none", features=1, size=size, mean=(0, 0, 0), std=(1, 1, 1))
    kept: list[int] = []
    pixels: list[Tensor] = []
    bad: list[str] = []
    for row in rows:
        path = catalog.image_path(row)
        if path is None:
            continue
        try:
            square = decode_picture(path.read_bytes(), plain, whole=whole)
        except (BadPicture, TooLarge) as error:
            bad.append(f"{path}: {error.message}")
            continue
        pixels.append(torch.tensor(square).permute(2, 0, 1))
        kept.append(row)
    if bad and damaged == "refuse":
        raise TrainingError(f"{_listed(bad)}\nrepair or remove these files, or let them be skipped")
    if bad:
        console.print(f"[yellow]left out of training[/] {_listed(bad)}")
    if not kept:
        raise TrainingError(
            f"none of the {len(rows)} products of {catalog.folder} has a picture that can be read"
        )
    return Pictures(torch.tensor(kept), torch.stack(pixels))


def _listed(bad: Sequence[str]) -> str:
    more = f"\nand {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return "\n".join(bad[:_SHOWN]) + more
