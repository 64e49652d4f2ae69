"""Bytes to the image tower's input, beside a loop over pixels."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from newshelf.nn.inputs import decode_picture, prepare_picture, prepare_pictures
from newshelf.nn.spec import ImageInput

MEAN, STD = (0.1, 0.5, 0.7), (0.2, 0.4, 0.5)
ROUNDED = 1.0
"""A resize rounds to whole levels, after each of its two passes."""


def tower(size: int, crop: float = 1.0) -> ImageInput:
    return ImageInput(architecture="any", features=1, size=size, crop=crop, mean=MEAN, std=STD)


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


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


def naive(pixels: np.ndarray, spec: ImageInput) -> np.ndarray:
    """``(size, size, 3)`` float64: the centre square, resized."""
    height, width = pixels.shape[:2]
    side = max(1, round(min(height, width) * spec.crop))
    top, left = (height - side) // 2, (width - side) // 2
    filters = weights(side, spec.size)
    result = np.zeros((spec.size, spec.size, 3))
    for y, x in itertools.product(range(spec.size), repeat=2):
        for i, j in itertools.product(range(side), repeat=2):
            result[y, x] += filters[y][i] * filters[x][j] * pixels[top + i, left + j]
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
def test_equals_the_loop_over_pixels(png, height, width, size, crop):
    spec = tower(size, crop)
    pixels = drawn(height, width)
    decoded = decode_picture(png(pixels), spec)
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded, naive(pixels, spec), atol=ROUNDED)


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    size=st.integers(1, 12),
    crop=st.floats(0.05, 1),
)
def test_any_shape_gives_a_square_within_its_own_colours(png, height, width, size, crop):
    pixels = drawn(height, width, seed=height)
    decoded = decode_picture(png(pixels), tower(size, crop))
    assert decoded.shape == (size, size, 3)
    assert (decoded >= pixels.min(axis=(0, 1))).all()
    assert (decoded <= pixels.max(axis=(0, 1))).all()


def test_a_picture_is_resized_as_by_pillow(saved):
    """At sizes where the loop over pixels would take minutes."""
    large = Image.radial_gradient("L").convert("RGB").resize((1200, 1000))
    spec = tower(16)
    left = (1200 - 1000) // 2
    plain = large.crop((left, 0, left + 1000, 1000)).resize((16, 16), Image.Resampling.BILINEAR)
    decoded = decode_picture(saved(large, "PNG"), spec)
    np.testing.assert_allclose(decoded.astype(int), np.asarray(plain).astype(int), atol=ROUNDED)


@pytest.mark.parametrize("crop", [1.0, 0.875, 0.5])
@pytest.mark.parametrize("size", [(1600, 1200), (900, 1200), (600, 500), (130, 90)])
def test_a_jpeg_decoded_at_a_fraction_is_nearly_the_whole_one(saved, crop, size):
    grey = Image.radial_gradient("L").resize(size)
    picture = Image.merge("RGB", (grey, grey.rotate(180), grey.transpose(Image.FLIP_LEFT_RIGHT)))
    data = saved(picture, "JPEG", quality=95)
    spec = tower(64, crop)
    scaled = decode_picture(data, spec).astype(int)
    whole = decode_picture(data, spec, scaled=False).astype(int)
    assert np.abs(scaled - whole).mean() < 1.5


def test_a_fraction_leaves_more_pixels_than_are_wanted(saved, monkeypatch):
    asked = []
    draft = Image.Image.draft
    monkeypatch.setattr(
        "PIL.JpegImagePlugin.JpegImageFile.draft",
        lambda self, mode, size: asked.append(size) or draft(self, mode, size),
    )
    data = saved(Image.new("RGB", (400, 300)), "JPEG")
    decode_picture(data, tower(64, 0.5))
    decode_picture(data, tower(64), scaled=False)
    [(width, height)] = asked
    assert width == height >= 1.5 * 64 / 0.5


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
@pytest.mark.parametrize("crop", [1.0, 0.1])
def test_an_extreme_shape_is_its_middle(png, shape, crop):
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    pixels[(shape[0] - 1) // 2, (shape[1] - 1) // 2] = 255
    assert (decode_picture(png(pixels), tower(16, crop)) == 255).all()


def test_normalising_is_by_channel_and_writes_its_row_alone(png):
    batch = np.full((3, 3, 5, 5), 7, dtype=np.float32)
    pixels = drawn(5, 5)
    prepare_picture(png(pixels), tower(5), batch[1])
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        expected = (pixels[:, :, channel] / 255 - mean) / std
        np.testing.assert_allclose(batch[1, channel], expected, rtol=1e-5, atol=1e-6)
    assert (batch[[0, 2]] == 7).all()


def test_several_are_prepared_as_one_is(png):
    spec = tower(6)
    pictures = [drawn(6, 6, seed) for seed in range(3)]
    batch = prepare_pictures(pictures, spec)
    assert batch.shape == (3, 3, 6, 6)
    assert batch.dtype == np.float32
    for pixels, row in zip(pictures, batch, strict=True):
        alone = np.empty((3, 6, 6), dtype=np.float32)
        prepare_picture(png(pixels), spec, alone)
        np.testing.assert_array_equal(alone, row)
    assert prepare_pictures([], spec).shape == (0, 3, 6, 6)


def test_white_is_where_it_should_be():
    white = np.full((1, 1, 3), 255, dtype=np.uint8)
    [prepared] = prepare_pictures([white], tower(1))
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        assert math.isclose(float(prepared[channel, 0, 0]), (1 - mean) / std, rel_tol=1e-6)
