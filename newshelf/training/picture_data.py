"""Pictures of a catalogue in memory, each checked before anything is trained.

One picture seen in several ways, and what a frozen tower makes of each.

A mirrored or enlarged picture shows the same thing: learn from every view, and average what
is said about them (Krizhevsky et al., 2012, averaged ten crops). Each view costs a pass of
the tower, and no training of it.

What may differ between two pictures of one product: frame, side, turn, light.

Which pictures are learned from, in what order, and how much each class counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor
from torchvision.transforms import v2

from newshelf.catalog.catalog import Catalog
from newshelf.errors import BadPicture, TooLarge, TrainingError
from newshelf.nn.inputs import decode_picture
from newshelf.nn.spec import ImageInput

_SHOWN = 10


@dataclass(frozen=True)
class PictureSet:
    """n decoded pictures."""

    rows: Tensor
    """``(n,)`` int64: their rows of the catalogue's items."""
    pixels: Tensor
    """``(n, 3, size, size)`` uint8."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> "PictureSet":
        """Some of them, by position ``(m,)`` int64."""
        return PictureSet(self.rows[index], self.pixels[index])


def read_pictures(
    catalog: Catalog,
    rows: Sequence[int],
    size: int,
    console: Console,
    *,
    damaged: Literal["skip", "refuse"] = "skip",
    whole: bool = False,
) -> PictureSet:
    """Decode the pictures of ``rows`` as serving does: centre square, resized.

    Everything is decoded here, so that no damaged file is met in the middle of an epoch.

    Args:
        catalog: where they are; rows without a picture are left out.
        rows: of its items.
        size: height and width in pixels.
        console: prints the files that are left out.
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
    return PictureSet(torch.tensor(kept), torch.stack(pixels))


def _listed(bad: Sequence[str]) -> str:
    more = f"\nand {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return "\n".join(bad[:_SHOWN]) + more


_SCALE = (0.6, 1.0)
_RATIO = (0.85, 1.18)
_DEGREES = 12.0
_LIGHT = 0.2


def augment_pictures(pixels: Tensor) -> Tensor:
    """Change each picture on its own: crop, flip, turn (white beyond the edge), light.

    The randomness is torch's global generator, which the training loop seeds each epoch.

    Args:
        pixels: ``(n, 3, size, size)`` uint8.

    Returns:
        The same shape and type.
    """
    change = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            # Product pictures stand on white; black corners would be a sign of training. The
            # turn leaves a dark rim between picture and fill unless that fill is 0.
            v2.Lambda(torch.bitwise_not),
            v2.RandomRotation(_DEGREES, v2.InterpolationMode.BILINEAR, fill=0),
            v2.Lambda(torch.bitwise_not),
            v2.RandomResizedCrop(pixels.shape[-2:], scale=_SCALE, ratio=_RATIO, antialias=True),
            v2.ColorJitter(brightness=_LIGHT, contrast=_LIGHT, saturation=_LIGHT),
        ]
    )
    # A transform draws once per call: one call per picture, so that each gets its own.
    return torch.stack([change(picture) for picture in pixels])


_MIN_TO_HOLD_OUT = 10


def require_shots(target: Tensor, classes: tuple[str, ...], shots: int = 1) -> None:
    """Refuse labels nothing can be learned from.

    Args:
        target: ``(n,)`` int64, each a class.
        classes: their names.
        shots: labelled products each class must have.

    Raises:
        TrainingError: fewer than two classes, or a class with fewer than ``shots`` products.
    """
    if len(classes) <= 1:
        have = f"only {classes[0]!r}" if classes else "none"
        raise TrainingError(f"classifying needs two classes at least; the labels name {have}")
    counts = torch.bincount(target, minlength=len(classes)).tolist()
    few = [f"{name} has {n}" for name, n in zip(classes, counts, strict=True) if n < shots]
    if few:
        raise TrainingError(
            f"{shots} labelled products of each class are needed, but {', '.join(few)}: "
            "label more, ask for fewer shots, or leave the class out"
        )


def hold_out(target: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions to learn from and to validate on; none of the latter when classes are small.

    Args:
        target: ``(n,)`` int64.
        share: of each class.
        generator: decides which.

    Returns:
        Two int64 tensors of positions, without overlap.
    """
    everything = torch.arange(len(target))
    counts = torch.bincount(target)
    if share == 0 or counts[counts > 0].min() < _MIN_TO_HOLD_OUT:
        return everything, everything[:0]
    held = torch.zeros(len(target), dtype=torch.bool)
    for value in target.unique():
        rows = torch.nonzero(target == value).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        held[rows[: max(1, round(share * len(rows)))]] = True
    return everything[~held], everything[held]


def epoch_rows(target: Tensor, balanced: bool, generator: torch.Generator) -> Tensor:
    """``(n,)`` positions of one epoch, shuffled.

    Balanced, every class is drawn alike: the rows of each are gone through again and again
    in random order until it has its share, so none is drawn twice before all were once.
    """
    rows = len(target)
    if not balanced:
        return torch.randperm(rows, generator=generator)
    values = target.unique()
    share = -(-rows // len(values))
    drawn = []
    for value in values:
        own = torch.nonzero(target == value).flatten()
        rounds = [
            own[torch.randperm(len(own), generator=generator)] for _ in range(-(-share // len(own)))
        ]
        drawn.append(torch.cat(rounds)[:share])
    every = torch.cat(drawn)
    return every[torch.randperm(len(every), generator=generator)][:rows]


def class_weights(target: Tensor, classes: int) -> Tensor:
    """``(classes,)`` float32: n / (classes · n_c), mean 1 over the n rows; 0 for no row."""
    counts = torch.bincount(target, minlength=classes).float()
    weights = len(target) / (classes * counts.clamp(min=1))
    return weights * (counts > 0)
