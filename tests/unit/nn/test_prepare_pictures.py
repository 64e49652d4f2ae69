"""Crop, resize and normalise, beside a loop over pixels."""

import math

import pytest
import torch
from torch import Tensor

from newshelf.nn.inputs import prepare_pictures
from newshelf.nn.spec import ImageInput

MEAN, STD = (0.1, 0.5, 0.7), (0.2, 0.4, 0.5)


def tower(size: int, crop: float = 1.0) -> ImageInput:
    return ImageInput(architecture="any", features=1, size=size, crop=crop, mean=MEAN, std=STD)


def drawn(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def weights(old: int, new: int) -> list[list[float]]:
    """The triangle filter, as wide as what one new pixel covers, at least 1."""
    scale = old / new
    reach = max(scale, 1.0)
    rows = []
    for place in range(new):
        centre = (place + 0.5) * scale
        row = [max(0.0, 1 - abs(at + 0.5 - centre) / reach) for at in range(old)]
        rows.append([value / sum(row) for value in row])
    return rows


def naive(picture: Tensor, spec: ImageInput) -> Tensor:
    height, width = picture.shape[1:]
    side = max(1, round(min(height, width) * spec.crop))
    top, left = (height - side) // 2, (width - side) // 2
    filters = weights(side, spec.size)
    result = torch.zeros(3, spec.size, spec.size)
    for channel in range(3):
        for y in range(spec.size):
            for x in range(spec.size):
                value = sum(
                    down * across * float(picture[channel, top + i, left + j])
                    for i, down in enumerate(filters[y])
                    if down
                    for j, across in enumerate(filters[x])
                    if across
                )
                result[channel, y, x] = (value / 255 - MEAN[channel]) / STD[channel]
    return result


@pytest.mark.parametrize(
    ("height", "width", "size", "crop"),
    [
        (9, 9, 4, 1.0),
        (14, 8, 4, 1.0),
        (7, 12, 4, 1.0),
        (5, 3, 8, 1.0),
        (13, 10, 4, 0.7),
        (8, 8, 7, 0.875),
        (4, 4, 4, 1.0),
        (6, 4, 4, 1.0),
        (1, 1, 3, 1.0),
    ],
)
def test_equals_the_loop_over_pixels(height, width, size, crop):
    spec = tower(size, crop)
    picture = drawn(height, width)
    [prepared] = prepare_pictures([picture], spec, "cpu")
    torch.testing.assert_close(prepared, naive(picture, spec), atol=1e-4, rtol=0)


def test_pictures_of_any_size_share_a_batch_and_do_not_touch_each_other():
    pictures = [drawn(9, 30, 1), drawn(64, 12, 2), drawn(16, 16, 3)]
    spec = tower(16)
    batch = prepare_pictures(pictures, spec, "cpu")
    assert batch.shape == (3, 3, 16, 16)
    assert batch.dtype == torch.float32
    for picture, row in zip(pictures, batch, strict=True):
        torch.testing.assert_close(prepare_pictures([picture], spec, "cpu")[0], row)


def test_no_pictures_give_an_empty_batch():
    assert prepare_pictures([], tower(8), "cpu").shape == (0, 3, 8, 8)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
@pytest.mark.parametrize("crop", [1.0, 0.1])
def test_an_extreme_shape_is_its_middle(shape, crop):
    picture = torch.zeros((3, *shape), dtype=torch.uint8)
    middle = ((shape[0] - 1) // 2, (shape[1] - 1) // 2)
    picture[:, middle[0], middle[1]] = 255
    [prepared] = prepare_pictures([picture], tower(16, crop), "cpu")
    expected = torch.tensor([(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)])
    torch.testing.assert_close(prepared, expected.view(3, 1, 1).expand(3, 16, 16))


def test_normalising_is_by_channel():
    white = torch.full((3, 5, 5), 255, dtype=torch.uint8)
    [prepared] = prepare_pictures([white], tower(5), "cpu")
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        assert math.isclose(float(prepared[channel, 2, 2]), (1 - mean) / std, rel_tol=1e-6)
