"""What may differ between two pictures of one product: frame, side, turn, light."""

import torch
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["augment_pictures"]

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
    # A transform draws once per call: one call per picture, so that each is changed anew.
    return torch.stack([change(picture) for picture in pixels])
