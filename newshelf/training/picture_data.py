"""Pictures as training data: decoding, augmentation, validation split and class balance."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from sklearn.model_selection import train_test_split
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


def read_pictures(
    catalog: Catalog,
    rows: Sequence[int],
    size: int,
    console: Console,
) -> PictureSet:
    """Decode the pictures of ``rows`` as serving does: centre square, resized.

    Damaged pictures are left out and printed. All decoding happens here, so that no epoch meets
    a damaged file.

    Rows without a picture are left out.

    Raises:
        TrainingError: no picture can be read.
    """
    # Decoding alone does not read mean and standard deviation.
    plain = ImageInput(architecture="none", features=1, size=size, mean=(0, 0, 0), std=(1, 1, 1))
    kept: list[int] = []
    pixels: list[Tensor] = []
    bad: list[str] = []
    for row in rows:
        path = catalog.image_path(row)
        if path is None:
            continue
        try:
            square = decode_picture(path.read_bytes(), plain)
        except (BadPicture, TooLarge) as error:
            bad.append(f"{path}: {error.message}")
            continue
        except OSError as error:
            bad.append(f"{path}: {error.strerror}")
            continue
        pixels.append(torch.tensor(square).permute(2, 0, 1))
        kept.append(row)
    if bad:
        more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
        lines = "\n".join([*bad[:_SHOWN], *more])
        console.print(f"[yellow]left out of training[/] {lines}")
    if not kept:
        raise TrainingError(
            f"none of the {len(rows)} products of {catalog.folder} has a picture that can be read"
        )
    return PictureSet(torch.tensor(kept), torch.stack(pixels))


_SCALE = (0.6, 1.0)
_RATIO = (0.85, 1.18)
_DEGREES = 12.0
_LIGHT = 0.2


def augment_pictures(pixels: Tensor) -> Tensor:
    """Randomly crop, flip, rotate and light each picture, ``(n, 3, size, size)`` uint8.

    Draws from torch's global generator, which the training loop seeds each epoch.
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


def normalise_pixels(pixels: Tensor, spec: ImageInput, size: int | None = None) -> Tensor:
    """``(n, 3, S, S)`` uint8 → ``(n, 3, size, size)`` float32, normalised for the tower."""
    x = pixels.float() if size is None else v2.functional.resize(pixels.float(), [size, size])
    normalised: Tensor = v2.functional.normalize(x / 255, list(spec.mean), list(spec.std))
    return normalised.to(memory_format=torch.channels_last)


_MIN_TO_HOLD_OUT = 10


def require_classes(target: Tensor, classes: tuple[str, ...]) -> None:
    """Refuse labels ``target (n,)`` int64 that no classifier can learn from.

    Raises:
        TrainingError: fewer than two classes, or a class without a product.
    """
    if len(classes) <= 1:
        have = f"only {classes[0]!r}" if classes else "none"
        raise TrainingError(f"classifying needs two classes at least; the labels name {have}")
    counts = torch.bincount(target, minlength=len(classes)).tolist()
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise TrainingError(
            f"no product is labelled {', '.join(empty)}: label some, or leave the class out"
        )


def split_validation(target: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return positions to train and to validate on; none of the latter if a class is small.

    ``target`` is ``(n,)`` int64; ``share`` is that of each class for validation.
    """
    everything = torch.arange(len(target))
    counts = torch.bincount(target)
    if share == 0 or counts[counts > 0].min() < _MIN_TO_HOLD_OUT:
        return everything, everything[:0]
    learn, held = train_test_split(everything, test_size=share, stratify=target, random_state=seed)
    return torch.as_tensor(learn), torch.as_tensor(held)


def epoch_rows(target: Tensor, balanced: bool, generator: torch.Generator) -> Tensor:
    """Return ``(n,)`` positions of one epoch in random order; if ``balanced``, by class first."""
    rows = len(target)
    if not balanced:
        return torch.randperm(rows, generator=generator)
    weights = 1 / torch.bincount(target)[target].double()
    return torch.multinomial(weights, rows, replacement=True, generator=generator)
